"""Certificates that clients present: what they say, whom to believe, and which are revoked."""
