"""Secrets that unmodified clients present, and what they stand for."""
