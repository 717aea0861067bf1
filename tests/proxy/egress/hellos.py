"""ClientHellos, honest and not."""

import contextlib
import ssl


def client_context() -> ssl.SSLContext:
    """Return a context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def hello(server_name: str | None) -> bytes:
    """Return the ClientHello that OpenSSL makes."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = client_context().wrap_bio(incoming, outgoing, server_hostname=server_name)
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


def with_extension(record: bytes, number: int, content: bytes) -> bytes:
    """Return the hello in `record` with one more extension."""
    body = bytearray(record[9:])
    at = 34
    at += 1 + body[at]
    at += 2 + int.from_bytes(body[at : at + 2])
    at += 1 + body[at]
    block = bytes(body[at + 2 :]) + number.to_bytes(2) + len(content).to_bytes(2) + content
    whole = bytes(body[:at]) + len(block).to_bytes(2) + block
    message = b"\x01" + len(whole).to_bytes(3) + whole
    return record[:3] + len(message).to_bytes(2) + message


def split(record: bytes, octets: int) -> bytes:
    """Return the handshake message of `record` in records of `octets` each."""
    message = record[5:]
    parts = [message[at : at + octets] for at in range(0, len(message), octets)]
    return b"".join(record[:3] + len(part).to_bytes(2) + part for part in parts)


def retry() -> bytes:
    """Return a HelloRetryRequest (RFC 8446, section 4.1.3)."""
    random = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
    body = b"\x03\x03" + random + b"\x00\x13\x01\x00\x00\x00"
    message = b"\x02" + len(body).to_bytes(3) + body
    return b"\x16\x03\x03" + len(message).to_bytes(2) + message
