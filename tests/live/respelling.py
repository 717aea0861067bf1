"""Names of dns2tcp in the letters of host names, and back: a relay at each end of a tunnel.

dns2tcp asks for names with `=` and `/` in them, and minds their case: the appliance takes none of
that for a name (RFC 5890, section 2.3.1), and answers FORMERR.  Whoever meets such a resolver
spells the names anew, in base32 (RFC 4648, section 7), as here; the rest of a message stays as is.
"""

import base64
import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator

import dns.flags
import dns.message
import dns.name
import dns.rrset

from tests.internet import Namespace

type Address = tuple[str, int]
type Change = Callable[[dns.name.Name], dns.name.Name]

_LABEL_OCTETS = 63  # RFC 1035, section 2.3.4
_PENDING = 1024  # questions that nobody answered


def spell(zone: bytes, name: dns.name.Name) -> dns.name.Name:
    """Return `name` with what stands below `zone` in base32."""
    apex = dns.name.from_text(zone.decode())
    below = b".".join(name.relativize(apex).labels)
    text = base64.b32hexencode(below).rstrip(b"=").lower()
    labels = [text[at : at + _LABEL_OCTETS] for at in range(0, len(text), _LABEL_OCTETS)]
    return dns.name.Name([*labels, *apex.labels])


def unspell(zone: bytes, name: dns.name.Name) -> dns.name.Name:
    """Return the name that `spell` made this one of."""
    apex = dns.name.from_text(zone.decode())
    text = b"".join(name.relativize(apex).labels).upper()
    below = base64.b32hexdecode(text + b"=" * (-len(text) % 8))
    return dns.name.Name([*below.split(b"."), *apex.labels])


class Respelling:
    """Relays questions with changed names, and answers with the names that were asked for."""

    def __init__(self, near: socket.socket, far: socket.socket, change: Change) -> None:
        self._near, self._far = near, far
        self._change = change
        self._pending: dict[int, tuple[dns.message.Message, Address]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, space: Namespace, near: Address, far: Address, change: Change
    ) -> Iterator["Respelling"]:
        """Relay from `near` to `far` while the context is open."""
        with space.entered():
            inner = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            outer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with inner, outer:
            inner.bind(near)
            outer.connect(far)
            relay = cls(inner, outer, change)
            relay._thread.start()
            yield relay
            relay._ended.set()
            relay._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            ready, _, _ = select.select([self._near, self._far], [], [], 0.05)
            for each in ready:
                # The other end may be gone, and a name may be too long when it is spelt anew.
                with contextlib.suppress(OSError, ValueError, dns.exception.DNSException):
                    (self._ask if each is self._near else self._answer)()

    def _ask(self) -> None:
        octets, client = self._near.recvfrom(65535)
        asked = dns.message.from_wire(octets)
        if len(self._pending) >= _PENDING:
            self._pending.clear()
        self._pending[asked.id] = asked, client
        question = asked.question[0]
        changed = dns.message.make_query(self._change(question.name), question.rdtype)
        changed.id = asked.id
        self._far.send(changed.to_wire())

    def _answer(self) -> None:
        came = dns.message.from_wire(self._far.recv(65535))
        if came.id not in self._pending:
            return
        asked, client = self._pending.pop(came.id)
        answer = dns.message.make_response(asked)
        answer.flags |= came.flags & (dns.flags.AA | dns.flags.RA)
        answer.set_rcode(came.rcode())
        answer.answer = [
            dns.rrset.from_rdata_list(asked.question[0].name, each.ttl, list(each))
            for each in came.answer
        ]
        self._near.sendto(answer.to_wire(max_size=65535), client)
