"""What an app may do: the policy decision point.

Text and facts go in, values come out.  There is no clock, file, socket, environment or
log in this package; the public suffix list comes in as a value.  Words are those of
NIST SP 800-207 and XACML: a *principal* asks, a *fact* is what it asks for, a *decision*
answers, and an *obligation* is what must be done for an allow to stand.

Reading order: facts, decision, ruleset, match, decide; then text, document, syntax.
"""
