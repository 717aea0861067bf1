"""Tests of proxy/transport."""
