"""The issuer: a process of its own, the only one that holds the keys of the trust domain."""
