"""Tests of the HTTP plane, over loopback."""
