"""Tests of proxy/doctor/."""
