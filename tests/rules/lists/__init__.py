"""Tests of `rules.lists`."""
