"""Tests of `proxy.wire`: octets in, values out."""
