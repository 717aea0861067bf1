"""Capability tokens: exchanged, introspected, revoked (RFC 8693, RFC 7662, RFC 7009)."""
