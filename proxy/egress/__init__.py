"""The HTTP plane: head, identity, Connect, look-up, Endpoint, dial, then tunnel or Request."""
