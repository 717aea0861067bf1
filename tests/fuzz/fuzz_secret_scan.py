"""Names that may hold a registered secret: each form of it is found, and nothing raises."""

from proxy.canaries.known import KnownSecrets
from proxy.limits import Limits
from rules.errors import MalformedNameError
from rules.fingerprint import fingerprint
from rules.name import parse
from rules.secret_scan import SecretTable

KEY, SECRET = bytes(range(16)), b"Xk29-fJq8_mZtR4wLb7c"
TABLE = SecretTable(KEY, {"one": fingerprint(SECRET, KEY)})
SEEDS: tuple[bytes, ...] = (
    b"www.example.com",
    b"%b.evil.example" % SECRET.hex().encode(),
    b"xk29-fjq8.mztr4wlb7c.evil.example\nx.evil.example",
    b"xk29\n-fjq8\nmztr4w\nlb7c",
)


def target(data: bytes) -> None:
    """Ask for each line as a name; then a name that holds the secret is found all the same."""
    known = KnownSecrets(Limits())
    known.use(TABLE)
    for line in data.split(b"\n")[:64]:
        try:
            known.found("me", parse(line.decode("latin-1")))
        except MalformedNameError:
            continue
    assert known.found("me", parse(f"{SECRET.hex()}.unheard.example")) is not None
