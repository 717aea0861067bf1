"""Identity: the only package that will see a private key.

Issuer, profiles, verification and attestation come with later versions; nothing imports this
package yet.  The door is `rules.facts.Evidence`: certificate, token and lease are typed there,
and what presents one is refused until it can be proven.
"""
