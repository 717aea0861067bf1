"""Agents as operators see them: who beats, who is attested, who is revoked."""
