"""The attester (RFC 9334): what `sallyport attest` and `sallyport exchange` do."""
