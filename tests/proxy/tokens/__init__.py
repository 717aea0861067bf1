"""Tests of proxy/tokens/."""
