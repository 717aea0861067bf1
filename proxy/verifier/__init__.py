"""The verifier (RFC 9334): nonces, evidence, its appraisal, and the result that is signed."""
