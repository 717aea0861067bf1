"""What to do about a refusal, in one sentence for the agent; the same on both planes.

The text names the asker's own app and target, never another app's rules.
"""

from rules.decision import Decision, Reason, Verdict
from rules.facts import UNKNOWN_APP
from rules.required import ON_A_PLAIN_PORT

_ATTEST = "run `sallyport attest` or POST /attest/nonce at sallyport.internal"
_ATTEST_THERE = "run `sallyport attest` or POST /attest/nonce there"
_ADVICE: dict[Reason, str] = {
    Reason.RULE: "a deny rule covers it; do not retry, ask the admin",
    Reason.LOCAL: "answered by the appliance itself",
    Reason.HOST_NOT_LISTED: "ask the admin to list the host under apps.{app}.allow",
    Reason.LIST: "a deny list covers it; do not retry, ask the admin",
    Reason.TYPE_NOT_ALLOWED: "ask the admin to add the record type to `types` of its rule",
    Reason.ADDRESS_NOT_ALLOWED: "it points to an address it may not stand for; see `addresses`",
    Reason.SPECIAL_USE: "special-use names and addresses are not reachable from here",
    Reason.TUNNEL_DETECTED: "the look-ups resemble a DNS tunnel; stop, ask the admin",
    Reason.BUDGET: "the budget of this app is used up; retry later",
    Reason.RATE: "too many requests; retry later",
    Reason.QUARANTINED: "this app is quarantined; ask the admin",
    Reason.IDENTITY_UNKNOWN: "nothing proves which app asks; ask the admin for an identity line",
    Reason.IDENTITY_CONFLICT: "the credentials name different apps; present one",
    Reason.MTLS_REQUIRED: "its rule needs a client certificate: send yours to a listener with TLS",
    Reason.ATTESTATION_REQUIRED: _ATTEST,
    Reason.REVOKED: "the identity was revoked; ask the admin",
    Reason.NAME_MALFORMED: "send a host name of letters, digits, hyphens (A-labels), or an address",
    Reason.PORT_NOT_ALLOWED: "ask the admin to add the port to `ports` of its rule",
    Reason.METHOD_NOT_ALLOWED: "ask the admin to add the method to `methods` of its rule",
    Reason.PATH_NOT_ALLOWED: "ask the admin to add the path to `paths` of its rule",
    Reason.LITERAL_NOT_ALLOWED: "use a listed host name; literals need a rule with `addresses`",
    Reason.INSPECTION_UNAVAILABLE: "its rule needs readable HTTP; use http:// on a listed port",
    Reason.APPROVAL_REQUIRED: "wait for approval",
    Reason.GENERATION_CHANGED: "the rules changed meanwhile; retry once",
    Reason.REQUEST_MALFORMED: "send well-formed HTTP/1.1 in absolute-form, or CONNECT; or DNS",
    Reason.AUTHORITY_MISMATCH: "make Host equal the authority of the request target",
    Reason.SNI_MISMATCH: "make the TLS server name equal the CONNECT authority",
    Reason.SNI_MISSING: "send the TLS server name (SNI) of the CONNECT authority",
    Reason.NOT_TLS: "speak TLS inside this tunnel, or ask the admin for `tls: false`",
    Reason.ECH: "turn off encrypted ClientHello, or ask the admin for `ech: accept`",
    Reason.CAPACITY: "too much at once; retry later",
    Reason.AUDIT_QUOTA: "this app wrote too much audit; slow down",
    Reason.AUDIT_UNAVAILABLE: "the audit log cannot be written; the operator must act",
    Reason.INTERNAL_ERROR: "a bug of the appliance; report the id",
    Reason.UPSTREAM_UNREACHABLE: "the other side cannot be reached; retry later",
    Reason.UPSTREAM_TIMEOUT: "the other side does not answer; retry later",
    Reason.UPSTREAM_TLS: "the other side's certificate or TLS is not acceptable",
    Reason.UPSTREAM_MALFORMED: "the other side sent something malformed",
    Reason.NO_ADDRESS: "the name has no address of an allowed type",
}

_OF_A_STRANGER = (Reason.HOST_NOT_LISTED, Reason.LITERAL_NOT_ALLOWED)
"""What a stranger is refused for is less that a rule is missing than that nobody knows it."""


def advise(decision: Decision, app: str) -> str:
    """Return what the asker can do, with the admin's own words for a deny first."""
    reason = decision.reason
    if app == UNKNOWN_APP and reason in _OF_A_STRANGER:
        reason = Reason.IDENTITY_UNKNOWN
    advice = _ADVICE[reason].replace("{app}", app)
    if decision.text == ON_A_PLAIN_PORT:
        advice = _ATTEST_THERE  # the text says where; DNS has room for no more
    # What a failure says of the other side is for the operator, in audit.
    is_said = decision.text and decision.verdict is Verdict.DENY
    return f"{decision.text}; {advice}" if is_said else advice
