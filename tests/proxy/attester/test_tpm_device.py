"""The agent's side of a TPM, with a real one in software."""

import datetime as dt
import importlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, override

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certs.credential import Credential, make_credential
from certs.endorsement import Endorsement, verify_endorsement
from certs.quote import verify_quote
from proxy.attester.tpm_device import Tpm
from proxy.attester.tpm_errors import TpmError
from tests.certs import paper_tpm as paper
from tests.swtpm import Swtpm, Vendor, missing

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tpm2_pytss"),
]
MESSAGE = b"what came with the nonce"
TEMPLATES = {"EK-ECC256": 0x01C0000A, "EK-HIGH-ECC256": 0x01C00014, "EK-HIGH-RSA2048": 0x01C00012}
P_256, P_384 = TEMPLATES["EK-ECC256"], 0x01C00016


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    with Swtpm(tmp_path_factory.mktemp("tpm"), Vendor()) as found:
        yield found


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    """A TPM that no vendor vouches for."""
    with Swtpm(tmp_path_factory.mktemp("tpm"), Vendor(), certificates=False) as found:
        yield found


def library() -> Any:
    importlib.import_module("tpm2_pytss.utils")
    return importlib.import_module("tpm2_pytss")


def open_tpm(stand: Swtpm) -> Any:
    return library().ESAPI(stand.tcti)


def write_memory(stand: Swtpm, index: int, octets: bytes) -> None:
    """Put octets into an NV index, as a vendor does; none take it away."""
    tss = library()
    attributes = tss.TPMA_NV.PPWRITE | tss.TPMA_NV.PPREAD | tss.TPMA_NV.AUTHREAD
    attributes |= tss.TPMA_NV.OWNERREAD | tss.TPMA_NV.NO_DA | tss.TPMA_NV.PLATFORMCREATE
    platform = tss.ESYS_TR.PLATFORM
    with open_tpm(stand) as context:
        if not octets:
            old = context.tr_from_tpmpublic(tss.TPM2_HANDLE(index))
            context.nv_undefine_space(old, auth_handle=platform)
            return
        public = tss.TPMS_NV_PUBLIC(
            nvIndex=index,
            nameAlg=tss.TPM2_ALG.SHA256,
            attributes=attributes,
            dataSize=len(octets),
        )
        handle = context.nv_define_space(b"", tss.TPM2B_NV_PUBLIC(public), auth_handle=platform)
        for at in range(0, len(octets), 512):
            context.nv_write(handle, octets[at : at + 512], at, auth_handle=platform)


def certificate_of(stand: Swtpm, name: str = "EK-ECC256") -> bytes:
    """Return the certificate of the EK that the TPM makes from a template."""
    tss = library()

    def read(index: int) -> bytes:
        if index in TEMPLATES.values():
            return b"a certificate"
        raise tss.utils.NoSuchIndex(index)

    _certificate, template = tss.utils.create_ek_template(name, read)
    with open_tpm(stand) as context:
        handle, public, *_ = context.create_primary(None, template, tss.ESYS_TR.ENDORSEMENT)
        context.flush_context(handle)
    pem = public.to_pem()
    key = serialization.load_pem_public_key(pem)
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    return stand.vendor.endorse(key)


def keys_in(stand: Swtpm) -> int:
    """Return how many keys and sessions are in the TPM."""
    tss = library()
    count = 0
    with open_tpm(stand) as context:
        for first in (tss.TPM2_HC.TRANSIENT_FIRST, tss.TPM2_HC.LOADED_SESSION_FIRST):
            _more, found = context.get_capability(tss.TPM2_CAP.HANDLES, first, 16)
            count += len(found.data.handles)
    return count


def endorsed(stand: Swtpm, tpm: Tpm) -> Endorsement:
    now = dt.datetime.now(dt.UTC)
    sent = (*tpm.ek_certificates(), *stand.vendor.above)
    return verify_endorsement(sent, (stand.vendor.root,), now)


def enrol(stand: Swtpm, tpm: Tpm) -> tuple[bytes, bytes, int]:
    """Enrol its AK; return the secret, what the TPM tells, and the size of the EK."""
    endorsement, secret = endorsed(stand, tpm), secrets.token_bytes(32)
    made = make_credential(endorsement, tpm.ak()[1], secret)
    return secret, tpm.activate(made.credential, made.seed), endorsement.key.key_size


def test_enrols_with_an_ek_on_p384(stand: Swtpm) -> None:
    with Tpm(stand.tcti) as tpm:
        secret, told, size = enrol(stand, tpm)
    assert (told, size) == (secret, 384)


def test_enrols_with_an_ek_of_rsa_2048(tmp_path: Path) -> None:
    with Swtpm(tmp_path, Vendor()) as stand:
        write_memory(stand, P_384, b"")
        with Tpm(stand.tcti) as tpm:
            secret, told, size = enrol(stand, tpm)
        assert keys_in(stand) == 0
    assert (told, size) == (secret, 2048)


@pytest.mark.parametrize("padding", [b"", bytes(100), b"\xff" * 7], ids=["exact", "zeros", "ones"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_enrols_with_the_other_eks_of_the_profile(
    unknown: Swtpm, name: str, padding: bytes
) -> None:
    """The NV index may be larger than the certificate."""
    certificate = certificate_of(unknown, name)
    write_memory(unknown, TEMPLATES[name], certificate + padding)
    try:
        with Tpm(unknown.tcti) as tpm:
            assert tpm.ek_certificates() == (certificate,)
            secret, told, size = enrol(unknown, tpm)
    finally:
        write_memory(unknown, TEMPLATES[name], b"")
    assert told == secret
    assert str(size) in name
    assert keys_in(unknown) == 0


def test_says_when_nobody_vouches_for_the_tpm(unknown: Swtpm) -> None:
    with (
        Tpm(unknown.tcti) as tpm,
        pytest.raises(TpmError, match=r"no EK certificate.*software key"),
    ):
        tpm.ek_certificates()


def test_says_when_what_is_in_its_place_is_no_certificate(unknown: Swtpm) -> None:
    """It goes to the verifier as it is, which says so."""
    for octets in (b"abc", b"\x30\x03abc"):
        write_memory(unknown, P_256, octets)
        try:
            with Tpm(unknown.tcti) as tpm:
                assert tpm.ek_certificates() == (octets,)
        finally:
            write_memory(unknown, P_256, b"")


def test_sends_the_chain_that_it_was_given(stand: Swtpm) -> None:
    with Tpm(stand.tcti, stand.vendor.above) as tpm:
        sent = tpm.ek_certificates()
    assert sent[1:] == stand.vendor.above
    verify_endorsement(sent, (stand.vendor.root,), dt.datetime.now(dt.UTC))


def test_sends_the_chain_that_is_in_the_tpm(stand: Swtpm) -> None:
    """It goes over the ends of indices, which have 2 KiB at most; a file of certificates wins."""
    within = b"".join((*stand.vendor.above, stand.vendor.root))
    places = {0x01C00100: within[:600], 0x01C00101: within[600:] + bytes(9)}
    for index, octets in places.items():
        write_memory(stand, index, octets)
    try:
        with Tpm(stand.tcti) as tpm:
            sent = tpm.ek_certificates()
        with Tpm(stand.tcti, (stand.vendor.root,)) as tpm:
            assert tpm.ek_certificates() == (sent[0], stand.vendor.root)
    finally:
        for index in places:
            write_memory(stand, index, b"")
    assert sent[1:] == (*stand.vendor.above, stand.vendor.root)
    verify_endorsement(sent, (stand.vendor.root,), dt.datetime.now(dt.UTC))


def test_has_one_ak_for_good(stand: Swtpm) -> None:
    with Tpm(stand.tcti) as tpm:
        first = tpm.ak()
        assert tpm.ak() == first
    stand.restart()
    with Tpm(stand.tcti) as tpm:
        assert tpm.ak() == first


def test_quotes_what_the_verifier_believes(stand: Swtpm) -> None:
    with Tpm(stand.tcti) as tpm:
        name, public = tpm.ak()
        quote, signature, pcrs = tpm.quote(MESSAGE, (7, 0, 7))
        quoted = verify_quote(public, quote, signature, MESSAGE, pcrs)
        assert (quoted.name, quoted.pcrs) == (name, pcrs)
        assert list(pcrs) == ["0", "7"]
        everything = tpm.quote(MESSAGE, range(24))
        assert verify_quote(public, *everything[:2], MESSAGE, everything[2]).name == name


def test_quotes_what_was_measured_since(stand: Swtpm) -> None:
    with Tpm(stand.tcti) as tpm:
        _quote, _signature, before = tpm.quote(MESSAGE, (16,))
    stand.extend(16, b"something else")
    with Tpm(stand.tcti) as tpm:
        quote, signature, after = tpm.quote(MESSAGE, (16,))
        verify_quote(tpm.ak()[1], quote, signature, MESSAGE, after)
    assert before != after


def test_quotes_resets_that_only_go_up(stand: Swtpm) -> None:
    counts = []
    for _ in range(2):
        with Tpm(stand.tcti) as tpm:
            quote, signature, pcrs = tpm.quote(MESSAGE, (0,))
            quoted = verify_quote(tpm.ak()[1], quote, signature, MESSAGE, pcrs)
            counts.append(quoted.reset_count)
        stand.restart()
    assert counts[1] == counts[0] + 1


class Moving(Tpm):
    """A TPM in which somebody measures into PCR 16 between reading and quoting, `times` times."""

    times = 0

    @override
    def _read_pcrs(self, indices: Sequence[int]) -> list[bytes]:
        values = super()._read_pcrs(indices)
        if self.times:
            self.times -= 1
            tss = library()
            digest = tss.TPMT_HA(
                hashAlg=tss.TPM2_ALG.SHA256, digest=tss.TPMU_HA(sha256=secrets.token_bytes(32))
            )
            self._context.pcr_extend(tss.ESYS_TR.PCR16, tss.TPML_DIGEST_VALUES([digest]))
        return values


def test_reads_again_when_a_pcr_moves(stand: Swtpm) -> None:
    with Moving(stand.tcti) as tpm:
        tpm.times = 2
        quote, signature, pcrs = tpm.quote(MESSAGE, (16,))
        assert tpm.times == 0
        verify_quote(tpm.ak()[1], quote, signature, MESSAGE, pcrs)


def test_gives_up_when_pcrs_never_stand_still(stand: Swtpm) -> None:
    with Moving(stand.tcti) as tpm:
        tpm.times = 100
        with pytest.raises(TpmError, match="change all the time"):
            tpm.quote(MESSAGE, (16,))
        assert tpm.times == 92


@pytest.mark.parametrize("pcrs", [(), (24,), (-1, 0)])
def test_refuses_pcrs_that_are_none(stand: Swtpm, pcrs: tuple[int, ...]) -> None:
    with Tpm(stand.tcti) as tpm, pytest.raises(TpmError, match="0 to 23"):
        tpm.quote(MESSAGE, pcrs)


def test_says_when_there_is_no_bank_of_sha256(tmp_path: Path) -> None:
    tss = library()
    none = tss.TPMS_PCR_SELECTION(hash=tss.TPM2_ALG.SHA256, sizeofSelect=3, pcrSelect=bytes(3))
    sha1 = tss.TPMS_PCR_SELECTION.parse("sha1:" + ",".join(map(str, range(24))))
    allocation = tss.TPML_PCR_SELECTION([sha1, none])
    with Swtpm(tmp_path, Vendor(), certificates=False) as stand:
        with open_tpm(stand) as context:
            context.pcr_allocate(allocation)
        stand.restart()
        with Tpm(stand.tcti) as tpm, pytest.raises(TpmError, match="tpm2_pcrallocate"):
            tpm.quote(MESSAGE, (0,))


def test_opens_no_credential_for_another_ak(stand: Swtpm) -> None:
    with Tpm(stand.tcti) as tpm:
        other = paper.ecc_public(paper.ecc_key())
        made = make_credential(endorsed(stand, tpm), other, bytes(32))
        with pytest.raises(TpmError, match="not for the EK and the AK"):
            tpm.activate(made.credential, made.seed)
    assert keys_in(stand) == 0


def test_opens_no_credential_for_the_ek_of_another_tpm(stand: Swtpm, unknown: Swtpm) -> None:
    """Somebody sends another TPM's certificate: its chain is good, its key is not here."""
    write_memory(unknown, P_256, certificate_of(stand))
    try:
        with Tpm(unknown.tcti) as tpm:
            now = dt.datetime.now(dt.UTC)
            sent = (*tpm.ek_certificates(), *stand.vendor.above)
            endorsement = verify_endorsement(sent, (stand.vendor.root,), now)
            made = make_credential(endorsement, tpm.ak()[1], bytes(32))
            with pytest.raises(TpmError, match="not for the EK and the AK"):
                tpm.activate(made.credential, made.seed)
    finally:
        write_memory(unknown, P_256, b"")
    assert keys_in(unknown) == 0


@pytest.mark.parametrize(
    "made",
    [
        Credential(b"", b"", ""),
        Credential(b"\xff\xff", b"\x00\x01\x00", ""),
        Credential(bytes(2000), bytes(2000), ""),
    ],
)
def test_refuses_credentials_that_are_none(stand: Swtpm, made: Credential) -> None:
    with Tpm(stand.tcti) as tpm, pytest.raises(TpmError):
        tpm.activate(made.credential, made.seed)
    assert keys_in(stand) == 0


def test_leaves_no_key_behind(stand: Swtpm) -> None:
    """A TPM has room for three: the fourth of those that stay would be refused."""
    for _ in range(4):
        with Tpm(stand.tcti) as tpm:
            enrol(stand, tpm)
            tpm.quote(MESSAGE, (0,))
    assert keys_in(stand) == 0


def test_says_when_the_hierarchy_has_a_password(unknown: Swtpm) -> None:
    endorsement = library().ESYS_TR.ENDORSEMENT
    with open_tpm(unknown) as context:
        context.hierarchy_change_auth(endorsement, b"secret")
    try:
        with Tpm(unknown.tcti) as tpm, pytest.raises(TpmError, match="has a password"):
            tpm.ak()
    finally:
        with open_tpm(unknown) as context:
            context.tr_set_auth(endorsement, b"secret")
            context.hierarchy_change_auth(endorsement, b"")


def test_says_when_nothing_answers(tmp_path: Path) -> None:
    with (
        pytest.raises(TpmError, match="no TPM answers at swtpm:path="),
        Tpm(f"swtpm:path={tmp_path / 'none'}"),
    ):
        pass
