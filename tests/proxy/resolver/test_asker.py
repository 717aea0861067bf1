"""Where a query came from."""

import pytest

from proxy.metrics import DnsTransport
from proxy.resolver.asker import Asker
from tests.proxy.composed import ME


@pytest.mark.parametrize(
    ("transport", "is_encrypted"), [("udp", False), ("tcp", False), ("dot", True), ("doh", True)]
)
def test_tells_who_else_sees_the_reply(transport: DnsTransport, *, is_encrypted: bool) -> None:
    asker = Asker(ME, transport, 512, ("127.0.0.1", 1), "127.0.0.1:53")
    assert asker.is_encrypted is is_encrypted
