"""Tests of proxy/reload/."""
