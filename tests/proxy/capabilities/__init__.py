"""Tests of capability tokens."""
