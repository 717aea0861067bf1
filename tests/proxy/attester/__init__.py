"""Tests of the attester, against a verifier that speaks the API with TLS of both sides."""
