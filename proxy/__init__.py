"""A resolver and an egress proxy that ask one set of rules: the policy enforcement point.

    bytes -> [plane] -> Facts -> authorize -> decide(rules, facts) -> Decision
                                     |                                   |
                               audit + metrics                           v
    bytes <- [plane] <- carry out the obligations, or refuse with the reason

Two reading tours, six files each; tests/test_tour.py holds them to what a real query enters.

DNS over DoT:   resolver/stream, resolver/query, resolver/message, authorize, rules/decide,
                resolver/upstream
CONNECT:        egress/connection, identify, authorize, rules/decide, egress/dial,
                egress/tunnel

Imports point down: cli, demo, appliance, egress, admin and reload, resolver, authorize and
identify, transport, audit and wire, then values.  pyproject.toml holds the contracts.
"""
