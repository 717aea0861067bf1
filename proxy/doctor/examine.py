"""What may be wrong with this installation: a list of checks, each with a finding and its cure.

Every check is independent of the others, changes nothing, and asks nobody outside but the
configured upstream resolvers, and those for the root's NS records alone.  It works with the
appliance running or not.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from msgspec import Struct

from proxy.doctor.attestation import attestable, ek_roots
from proxy.doctor.certificates import certificates
from proxy.doctor.forwarders import forwarders
from proxy.doctor.host import address_families, clock, descriptors, kernel, peers
from proxy.doctor.identity import identity_clock, issuer, key_files, trust_domain
from proxy.doctor.patient import Finding, Patient
from proxy.doctor.ports import instances, ports
from proxy.doctor.rulefiles import confinement, rule_files, rule_writers
from proxy.doctor.state import audit, control_folder, database, disk, state_folder
from proxy.doctor.surroundings import proxy_variables, resolv_conf
from proxy.doctor.upstreams import upstreams

logger = logging.getLogger(__name__)

type Outcome = Literal["fine", "info", "warning", "error"]


class Check(Struct, frozen=True):
    """One check: its name in --json, what it looks at, and the function that looks."""

    name: str
    title: str
    find: Callable[[Patient], Iterable[Finding]]


CHECKS = (
    Check("rules", "rule files load", rule_files),
    Check("rule-writers", "no agent may write the rules", rule_writers),
    Check("system", "what --system claims", confinement),
    Check("ports", "every listener is ours", ports),
    Check("instances", "one appliance a state", instances),
    Check("state", "the state folder is writable", state_folder),
    Check("disk", "there is room for evidence", disk),
    Check("audit", "evidence is written", audit),
    Check("database", "the databases are sound", database),
    Check("certificates", "certificates are valid and name the listeners", certificates),
    Check("trust-domain", "the trust domain is whole, and its keys are young", trust_domain),
    Check("keys", "keys are open to us alone", key_files),
    Check("issuer", "certificates are issued", issuer),
    Check("ek-roots", "the roots of TPMs can be used", ek_roots),
    Check("attestation", "what rules require can be proven", attestable),
    Check("control", "the control socket is ours", control_folder),
    Check("clock", "the clock is right", clock),
    Check("identity-clock", "the clock agrees with the certificates", identity_clock),
    Check("peers", "the kernel names the owner of a connection", peers),
    Check("kernel", "the kernel is recent enough", kernel),
    Check("descriptors", "enough files may be open", descriptors),
    Check("ipv6", "address families of the listeners exist", address_families),
    Check("forwarders", "nobody stands between agents and us", forwarders),
    Check("upstreams", "upstream resolvers answer", upstreams),
    Check("proxy-variables", "this environment's programs use our proxy", proxy_variables),
    Check("resolv-conf", "the host's resolver", resolv_conf),
)


class Result(Struct, frozen=True):
    """What one check found."""

    check: str
    title: str
    findings: tuple[Finding, ...]

    @property
    def outcome(self) -> Outcome:
        """The worst of the findings."""
        found = {each.severity for each in self.findings}
        for severity in ("error", "warning", "info"):
            if severity in found:
                return severity
        return "fine"


def examine(patient: Patient, checks: Sequence[Check] = CHECKS) -> list[Result]:
    """Carry out every check, in order; one that breaks is a finding, and ends no other."""
    return [Result(each.name, each.title, _carried_out(each, patient)) for each in checks]


def is_healthy(results: Sequence[Result]) -> bool:
    """Return whether nothing is to be done; what is only for information does not count."""
    return all(each.outcome in {"fine", "info"} for each in results)


def _carried_out(check: Check, patient: Patient) -> tuple[Finding, ...]:
    try:
        return tuple(check.find(patient))
    except Exception as error:
        logger.exception("the check %s is broken", check.name)
        message = f"the check itself failed: {type(error).__name__}: {error}"
        return (Finding("error", message, "please report it: this is a bug of ours"),)
