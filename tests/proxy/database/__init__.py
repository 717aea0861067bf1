"""Tests of `proxy.database`."""
