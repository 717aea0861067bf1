"""Tests of proxy/resolver."""
