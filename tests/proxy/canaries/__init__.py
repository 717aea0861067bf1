"""Tests of registered secrets and canaries."""
