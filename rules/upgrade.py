"""`https_upgrade` and `client_certificate`: what they say, and which of them cannot both stand."""

import posixpath
from collections.abc import Iterable, Iterator

from msgspec import UNSET, Struct
from msgspec.structs import replace

from rules import document
from rules.address import Network
from rules.decision import ClientCertificate, FileCertificate, SvidCertificate, UpgradeTls
from rules.identity import Claim, read_spiffe
from rules.node import MappingNode, MistakeError, Node, Report, at, quote
from rules.path import PathGlob
from rules.pattern import HostPattern
from rules.ruleset import AllowRule

_TLS_ONLY = frozenset({443})
_UNNAMED = ""  # `svid`, until the app's identity lines are known

type Allowed = tuple[AllowRule, MappingNode, Report]
"""A rule, and where it stands."""


def read_upgrade(
    entry: document.Allow, ports: frozenset[int], node: MappingNode, report: Report
) -> UpgradeTls | None:
    """Return what an allow says of TLS to the origin; what is wrong is reported."""
    if entry.https_upgrade is UNSET or not entry.https_upgrade:
        if entry.client_certificate is not UNSET:
            message = "`client_certificate` is for origins that we dial with TLS ourselves"
            report.error(node.key("client_certificate"), message, "add `https_upgrade: true`")
        return None
    if entry.tls is not UNSET and not entry.tls:
        message = "`https_upgrade` with `tls: false`: the one asks for TLS, the other for none"
        report.error(node.key("https_upgrade"), message, "take one of the two out")
    if ports <= _TLS_ONLY:
        message = "`https_upgrade` has nothing to upgrade: http:// goes to port 80, not listed here"
        report.warn(node.key("https_upgrade"), message, "add `ports: [80]`; 443 is dialled for it")
    return UpgradeTls(_certificate(entry, node, report))


def name_svids(allows: Iterable[Allowed], claims: Iterable[Claim]) -> Iterator[Allowed]:
    """Yield the rules with the SPIFFE ID that `svid` stands for: one of the app's own."""
    ids = list(dict.fromkeys(line.spiffe for line, _, _, _ in claims if line.spiffe is not None))
    for rule, node, report in allows:
        certificate = None if rule.upgrade is None else rule.upgrade.certificate
        if isinstance(certificate, SvidCertificate):
            try:
                svid = SvidCertificate(_own_id(certificate.spiffe, ids))
            except MistakeError as mistake:
                place = at(node, "client_certificate")
                report.error(place, str(mistake), mistake.cure)
            else:
                yield replace(rule, upgrade=UpgradeTls(svid)), node, report
                continue
        yield rule, node, report


def refuse_unequal_certificates(allows: Iterable[Allowed]) -> None:
    """Report allows that may decide one request together and disagree on the certificate."""
    upgrading = [each for each in allows if each[0].upgrade is not None]
    if len({rule.upgrade for rule, _, _ in upgrading}) < 2:
        return
    seen: dict[tuple[HostPattern | Network, bool], dict[_Stance, str]] = {}
    for rule, node, report in upgrading:
        stance = _Stance(rule.upgrade, rule.ports, rule.methods, rule.paths)
        for place in rule.patterns or rule.addresses:
            stances = seen.setdefault((place, rule.from_pack), {})
            if stance not in stances:
                other = next((stances[each] for each in stances if each.contradicts(stance)), None)
                if other is not None:
                    message = f"`{place}` has another `client_certificate` in {other}"
                    report.error(node, message, "give both rules the same, or paths that differ")
                    break
                stances[stance] = rule.id


class _Stance(Struct, frozen=True):
    """What a rule presents, and to which requests."""

    upgrade: UpgradeTls | None
    ports: frozenset[int]
    methods: frozenset[str] | None
    paths: tuple[PathGlob, ...] | None

    def contradicts(self, other: "_Stance") -> bool:
        """Return whether a request may fit both equally well, and gets two certificates."""
        if self.upgrade == other.upgrade or self.ports.isdisjoint(other.ports):
            return False
        if self.methods is None or other.methods is None:
            if self.methods is not other.methods:
                return False  # the one with methods is more specific
        elif self.methods.isdisjoint(other.methods):
            return False
        if self.paths is None or other.paths is None:
            return self.paths is other.paths
        return not _reaches(self.paths).isdisjoint(_reaches(other.paths))


def _reaches(paths: Iterable[PathGlob]) -> set[object]:
    # Equal rank means equally many literal octets before the first star: two such patterns match
    # no path together unless those octets are the same.
    return {(glob.rank, glob.text.partition("*")[0]) for glob in paths}


def _certificate(
    entry: document.Allow, node: MappingNode, report: Report
) -> ClientCertificate | None:
    said = entry.client_certificate
    if said is UNSET:
        return None
    if isinstance(said, str):
        return SvidCertificate(_UNNAMED)
    place = node.value("client_certificate")
    try:
        if said.svid is not UNSET and said.cert is UNSET and said.key is UNSET:
            return SvidCertificate(read_spiffe(said.svid))
        if said.svid is UNSET and said.cert is not UNSET and said.key is not UNSET:
            cert = _path(said.cert, at(place, "cert"), report)
            return FileCertificate(cert, _path(said.key, at(place, "key"), report))
    except MistakeError as mistake:
        report.error(place, str(mistake), mistake.cure)
        return None
    if not (isinstance(place, MappingNode) and place.flawed):
        message = "`client_certificate` is `svid`, {svid: ...}, or {cert: ..., key: ...}"
        report.error(place, message, "write `svid`, or both files")
    return None


def _path(text: str, node: Node, report: Report) -> str:
    """Return a path, which is relative to the rule file where it is relative."""
    if not text or "\0" in text:
        raise MistakeError(f"{quote(text)} is no path", "name a PEM file")
    path = posixpath.join(posixpath.dirname(report.file), text)
    report.need(node, path)
    return path


def _own_id(spiffe: str, ids: list[str]) -> str:
    """Return which of the app's SPIFFE IDs is meant."""
    if not ids:
        cure = 'add {spiffe: "spiffe://..."} to the app\'s `identity`'
        raise MistakeError("the app has no SPIFFE ID to present", cure)
    if spiffe in ids or (spiffe == _UNNAMED and len(ids) == 1):
        return spiffe or ids[0]
    names = ", ".join(ids[:4])
    if spiffe == _UNNAMED:
        cure = f'write {{svid: "ID"}} with one of {names}'
        raise MistakeError("the app has several SPIFFE IDs: `svid` does not say which", cure)
    raise MistakeError(f"{quote(spiffe)} is no SPIFFE ID of this app", f"name one of {names}")
