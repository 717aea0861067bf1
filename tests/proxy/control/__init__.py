"""Tests of proxy/control/."""
