"""What was proven of those who ask: attestation results, what they are bound to, who attested."""
