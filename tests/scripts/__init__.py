"""The developers' programs that are more than a call of others."""
