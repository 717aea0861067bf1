"""Registered secrets and canaries, looked for in every name that is asked for."""
