"""The answer walker: an allowed name's answer is judged record by record and built anew.

From the asked name along its CNAMEs and DNAMEs (RFC 1034, section 3.6.2; RFC 6672), each link's
target is a `Question`, each address at the end an `Endpoint`.  What is out of the chain, of
another type, in another section or of another class is not copied.  Nothing is trusted because
it came with something that was allowed.

An address that a deny list names refuses the whole answer, and so does a name server of the
chain's names (RPZ: rpz-ip and rpz-nsdname): who has one of them has the others, too.
"""

from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from msgspec import Struct
from msgspec.structs import replace

from proxy.limits import Limits
from proxy.resolver.answer import REFUSAL_TTL_S, Answer, Rcode, Record, negative, read_name, soa
from proxy.resolver.response import Response
from proxy.resolver.service_binding import prune
from proxy.wire.question import write_name
from rules import rtype as rr
from rules.address import Address, embedded
from rules.decision import Decision, Reason, Verdict
from rules.errors import MalformedNameError
from rules.facts import Endpoint, Facts, Question
from rules.name import DomainName, ancestors, is_below, parse

# Denials that are about us and not about the address.
_OURS = frozenset(
    {Reason.CAPACITY, Reason.AUDIT_QUOTA, Reason.AUDIT_UNAVAILABLE, Reason.INTERNAL_ERROR}
)

type Judge = Callable[[Facts], Decision]
"""The enforcement point's `authorize` for one flow."""

type ServerJudge = Callable[[Question, DomainName], Decision | None]
"""Returns why names of a name server are refused to who asked the question; None: they are not."""

type Nat64 = tuple[IPv6Network, ...]
"""NAT64 prefixes beside the well-known one (RFC 6052)."""


class Walked(Struct, frozen=True):
    """What may be handed out, or why nothing may.

    `refusal` is a DENY, or a FAIL where the answer makes no sense.  `dropped` lists addresses
    and targets that were taken out, with the reason; `chain` the names after the asked one;
    `servers` the name servers that were judged.
    """

    answer: Answer | None
    refusal: Decision | None = None
    dropped: tuple[tuple[str, Reason], ...] = ()
    chain: tuple[DomainName, ...] = ()
    servers: tuple[DomainName, ...] = ()


class _BrokenError(Exception):
    """The answer contradicts itself; the text says how."""


def _any_server(*_: object) -> None:
    """Refuse no name server."""


def walk(
    question: Question,
    response: Response,
    judge: Judge,
    limits: Limits,
    nat64: Nat64 = (),
    judge_server: ServerJudge = _any_server,
) -> Walked:
    """Return what of `response` may answer the allowed `question`."""
    walker = _Walker(question, response, judge, limits, nat64, judge_server)
    try:
        return walker.walk()
    except (_BrokenError, MalformedNameError) as error:
        refusal = Decision(Verdict.FAIL, Reason.UPSTREAM_MALFORMED, text=str(error))
        return Walked(None, refusal, chain=tuple(walker.chain))


class _Walker:
    """One walk; `end` is the name that has been reached, `links` the CNAMEs that led there."""

    def __init__(
        self,
        question: Question,
        response: Response,
        judge: Judge,
        limits: Limits,
        nat64: Nat64,
        judge_server: ServerJudge,
    ) -> None:
        self._question = question
        self._response = response
        self._judge = judge
        self._limits = limits
        self._nat64 = nat64
        self._judge_server = judge_server
        self._servers: list[DomainName] = []
        self._listed: Decision | None = None
        self._cnames = _by_owner(response.records, rr.CNAME)
        self._dnames = _by_owner(response.records, rr.DNAME)
        self._links: list[Record] = []
        self._dropped: list[tuple[str, Reason]] = []
        self._denial: Decision | None = None
        self._end = question.name
        self.chain: list[DomainName] = []

    def walk(self) -> Walked:
        if self._response.truncated:
            raise _BrokenError("the answer was cut off")
        refusal = self._follow() or self._serve()
        if refusal is not None:
            return self._refused(refusal)
        finals = self._finals()
        if finals and self._response.rcode is not Rcode.NOERROR:
            raise _BrokenError("records at a name that is said not to exist")
        if not finals:
            return self._walked(self._negative())
        if self._question.rtype in {rr.A, rr.AAAA}:
            return self._addresses(finals)
        if self._question.rtype in {rr.HTTPS, rr.SVCB}:
            return self._bindings(finals)
        if self._question.rtype in {rr.CNAME, rr.DNAME}:
            return self._alias(finals)
        return self._walked(self._positive(finals))

    def _follow(self) -> Decision | None:
        """Walk to the end of the chain; a denied target ends it with its refusal."""
        if self._question.rtype == rr.CNAME:  # RFC 1034, section 3.6.2: asked for itself
            return None
        while (link := self._link()) is not None:
            record, target = link
            if target == self._question.name or target in self.chain:
                raise _BrokenError("the chain loops")
            if len(self._links) == self._limits.chain_links:
                raise _BrokenError(f"the chain has more than {self._limits.chain_links} links")
            self.chain.append(target)
            refusal = self._judge_target(target)
            if refusal is not None:
                return refusal
            self._links.append(record)
            self._end = target
        return None

    def _link(self) -> tuple[Record, DomainName] | None:
        cname = self._cnames.get(self._end)
        above = next((name for name in ancestors(self._end) if name in self._dnames), None)
        if above is not None:
            dname = self._dnames[above]
            target = _substitute(self._end, above, _target(dname))
            if cname and _target(cname) != target:  # RFC 6672, section 3.1
                raise _BrokenError("a CNAME that is not what its DNAME makes of the name")
            cname = dname
        elif cname:
            target = _target(cname)
        else:
            return None
        # Written from the canonical name, so that no octet of the upstream's goes on.
        return Record(self._end, rr.CNAME, cname[0].ttl, write_name(target)), target

    def _judge_target(self, target: DomainName) -> Decision | None:
        asked = self._question
        fact = Question(asked.principal, target, asked.rtype, via=asked.name)
        decision = self._judge(fact)
        if decision.reason is Reason.LOCAL:  # answered by us, so it is nobody's to lead to
            return Decision(Verdict.DENY, Reason.SPECIAL_USE, empty=True)
        if decision.verdict is Verdict.ALLOW:
            return None
        # The asked name itself is allowed: NXDOMAIN would deny it and all below (RFC 8020).  What
        # a list says of a CNAME's target holds for every type of the alias, a DNAME's for none.
        is_whole = decision.reason is Reason.LIST and asked.rtype != rr.DNAME
        return decision if is_whole else replace(decision, empty=True)

    def _serve(self) -> Decision | None:
        """Judge the name servers of the chain's names, as far as a forwarder sees them."""
        response = self._response
        records = [one for one in (*response.servers, *response.records) if one.rtype == rr.NS]
        if not records:
            return None
        names = (self._question.name, *self.chain)
        zones = {name for one in names for name in (one, *ancestors(one))}
        for record in records:
            server = _server(record) if record.owner in zones else None
            if server is None:
                continue
            self._servers.append(server)
            refusal = self._judge_server(self._question, server)
            if refusal is not None:
                return replace(refusal, empty=True)
        return None

    def _finals(self) -> list[Record]:
        """Return the records of the asked type at the chain's end, each once."""
        wanted = (self._end, self._question.rtype)
        same = (one for one in self._response.records if (one.owner, one.rtype) == wanted)
        return list({one.rdata: one for one in same}.values())  # RFC 2181, section 5

    def _addresses(self, finals: list[Record]) -> Walked:
        judged = [(one, _address(one)) for one in finals]
        kept = [(one, address) for one, address in judged if self._admits(address)]
        if self._listed is not None:
            return self._refused(self._listed)
        if not kept:
            return self._refused(_no_address_left(self._denial))
        addresses = tuple(address for _, address in kept)
        return self._walked(self._positive([one for one, _ in kept], addresses))

    def _bindings(self, finals: list[Record]) -> Walked:
        kept: list[Record] = []
        for one in finals:
            rdata = prune(one.rdata, self._end, self._admits)
            if rdata is None:
                self._dropped.append((rr.mnemonic(one.rtype), Reason.HOST_NOT_LISTED))
            else:
                kept.append(replace(one, rdata=rdata))
        if self._listed is not None:
            return self._refused(self._listed)
        if kept:
            return self._walked(self._positive(kept))
        nodata = negative(Rcode.NOERROR, self._end, REFUSAL_TTL_S)
        return self._walked(replace(nodata, records=tuple(self._capped(self._links))))

    def _alias(self, finals: list[Record]) -> Walked:
        """Judge the target of a CNAME or DNAME that was asked for as such."""
        target = _target(finals)
        self.chain.append(target)
        refusal = self._judge_target(target)
        if refusal is not None:
            return self._refused(refusal)
        return self._walked(self._positive([replace(finals[0], rdata=write_name(target))]))

    def _admits(self, address: Address) -> bool:
        asked = self._question
        # Carried IPv4 addresses of configured prefixes are judged beside the one that carries
        # them; those of well-known prefixes the rules unwrap themselves.
        for judged in (address, *(embedded(address, self._nat64) if self._nat64 else ())):
            decision = self._judge(Endpoint(asked.principal, asked.name, judged, None))
            if decision.verdict is not Verdict.ALLOW:
                self._dropped.append((str(address), decision.reason))
                self._denial = self._denial or decision
                if decision.reason is Reason.LIST:
                    hinted = asked.rtype not in {rr.A, rr.AAAA}  # others may be asked for instead
                    empty = decision.empty or hinted
                    self._listed = self._listed or replace(decision, empty=empty)
                return False
        return True

    def _positive(self, finals: list[Record], addresses: tuple[Address, ...] = ()) -> Answer:
        records = tuple(self._capped([*self._links, *finals]))
        ttl = min(one.ttl for one in records)
        return Answer(Rcode.NOERROR, records, (), ttl, addresses, tuple(self.chain))

    def _negative(self) -> Answer:
        """Return what says that the name or the type is not there, under an SOA of our own."""
        found = self._response.soa
        links = tuple(self._capped(self._links))
        rcode = self._response.rcode  # RFC 6604, section 3: it is about the chain's last name
        if found is None or not (found.owner == self._end or is_below(self._end, found.owner)):
            # RFC 2308, section 5: without an SOA it is not to be kept.
            return Answer(rcode, links, chain=tuple(self.chain))
        ttl = min(found.ttl, found.minimum, self._limits.negative_ttl_s)
        authority = (soa(found.owner, ttl),)
        kept_s = min([ttl, *(one.ttl for one in links)])
        return Answer(rcode, links, authority, kept_s, chain=tuple(self.chain))

    def _capped(self, records: Iterable[Record]) -> Iterator[Record]:
        bound = self._limits.cache_ttl_s
        return (one if one.ttl <= bound else replace(one, ttl=bound) for one in records)

    def _walked(self, answer: Answer) -> Walked:
        dropped, chain, servers = tuple(self._dropped), tuple(self.chain), tuple(self._servers)
        return Walked(answer, None, dropped, chain, servers)

    def _refused(self, refusal: Decision) -> Walked:
        dropped, chain, servers = tuple(self._dropped), tuple(self.chain), tuple(self._servers)
        return Walked(None, refusal, dropped, chain, servers)


def _by_owner(records: Iterable[Record], rtype: int) -> dict[DomainName, list[Record]]:
    found: dict[DomainName, list[Record]] = {}
    for record in records:
        if record.rtype == rtype:
            found.setdefault(record.owner, []).append(record)
    return found


def _target(records: list[Record]) -> DomainName:
    """Return the one target of an owner's CNAME or DNAME (RFC 2181, section 10.1)."""
    targets = {read_name(record.rdata)[0] for record in records}
    if len(targets) > 1:
        raise _BrokenError("a name that is an alias of two")
    return targets.pop()


def _server(record: Record) -> DomainName | None:
    """Return the name server of an NS record; None where no list could name it."""
    try:
        return read_name(record.rdata)[0]
    except MalformedNameError:
        return None


def _substitute(name: DomainName, owner: DomainName, target: DomainName) -> DomainName:
    # RFC 6672, section 2.2; a name that grows too long is an error (parse checks).
    return parse(f"{name.removesuffix(owner)}{target}")


def _no_address_left(denial: Decision | None) -> Decision:
    if denial is None or denial.reason in _OURS:
        return denial or Decision(Verdict.DENY, Reason.INTERNAL_ERROR)
    return Decision(
        Verdict.DENY, Reason.ADDRESS_NOT_ALLOWED, rule=denial.rule, text=denial.text, empty=True
    )


def _address(record: Record) -> Address:
    kind: type[Address] = IPv4Address if record.rtype == rr.A else IPv6Address
    return kind(record.rdata)
