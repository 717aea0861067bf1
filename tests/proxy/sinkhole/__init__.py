"""Tests of the sinkhole."""
