"""Tests of what belongs to a sandbox."""
