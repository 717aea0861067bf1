"""Sockets without policy: accepting, opening, TLS, and who is at the other end."""
