"""Tests of what is kept of attestations."""
