"""The DNS plane: identity, parse, policy, cache, upstream, walk, pin, reply, in that order."""
