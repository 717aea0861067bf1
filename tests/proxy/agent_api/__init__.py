"""Tests of the API that agents speak to."""
