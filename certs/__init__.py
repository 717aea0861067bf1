"""Identity: the only package that sees a private key.

The local CA of our own listeners (`authority`), and the trust domain whose certificates name apps
(`domain`).  Only what says so at its head can be imported without the library for X.509.
"""
