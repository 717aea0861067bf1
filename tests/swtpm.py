"""A real TPM 2.0 in software, manufactured with EK certificates of a private vendor.

    with Swtpm(folder, Vendor()) as stand:
        Tpm(stand.tcti)          # an RSA-2048 and a P-384 EK, each with its certificate
        stand.vendor.root        # DER, for whoever is to trust it
        stand.vendor.above       # DER, what stands between the root and an EK's certificate
        stand.restart()          # as if the host were switched off and on: resetCount goes up
        stand.extend(16, b"...") # PCR 16 has another value then

It listens on unix sockets in a folder of its own, and takes one client at a time.
"""

import datetime as dt
import hashlib
import importlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certs.endorsement import EK_USAGE
from tests.authority import named

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_PROGRAMS = {"swtpm": "swtpm", "swtpm_setup": "swtpm-tools", "swtpm_localca": "swtpm-tools"}
_WAIT_S = 20.0
DAY = dt.timedelta(days=1)
type Changes = Mapping[type[x509.ExtensionType], x509.ExtensionType | None]
type PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


def missing() -> str:
    """Return what has to be installed for a TPM in tests, "" where all is there."""
    packages = {
        package for name, package in _PROGRAMS.items() if shutil.which(name, path=PATH) is None
    }
    if packages:
        return f"needs apt-get install --no-install-recommends {' '.join(sorted(packages))}"
    if importlib.util.find_spec("tpm2_pytss") is None:
        return "needs pip install 'sallyport[tpm]' (and libtss2-dev, gcc, pkg-config to build it)"
    return ""


def key_usage(**chosen: bool) -> x509.KeyUsage:
    """Return a key usage with nothing but what is `chosen`."""
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    others = ("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{**dict.fromkeys((*names, *others), False), **chosen})


def _ek_extensions(is_rsa: bool) -> Changes:
    """Return what certificates of EKs have (EK Credential Profile, section 3.2)."""
    manufacturer, model, version = (
        x509.NameAttribute(x509.ObjectIdentifier(f"2.23.133.2.{last}"), text)
        for last, text in ((1, "id:54455354"), (2, "paper"), (3, "id:00010002"))
    )
    tpm = x509.DirectoryName(x509.Name([manufacturer, model, version]))
    return {
        x509.SubjectAlternativeName: x509.SubjectAlternativeName([tpm]),
        x509.BasicConstraints: x509.BasicConstraints(ca=False, path_length=None),
        x509.ExtendedKeyUsage: x509.ExtendedKeyUsage([EK_USAGE]),
        x509.KeyUsage: key_usage(key_encipherment=is_rsa, key_agreement=not is_rsa),
    }


class Vendor:
    """Who makes TPMs: a root, and a CA below it that signs the certificates of EKs."""

    def __init__(self, name: str = "TPMs of a test") -> None:
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.key = ec.generate_private_key(ec.SECP256R1())
        root, below = named(f"{name}: root"), named(f"{name}: EK CA")
        self._root = self.authority(root, root, self.root_key, self.root_key)
        self._below = self.authority(below, root, self.key, self.root_key)
        self.name = below

    @property
    def root(self) -> bytes:
        return self._root.public_bytes(serialization.Encoding.DER)

    @property
    def root_pem(self) -> bytes:
        return self._root.public_bytes(serialization.Encoding.PEM)

    @property
    def above(self) -> tuple[bytes, ...]:
        return (self._below.public_bytes(serialization.Encoding.DER),)

    def endorse(
        self,
        key: PublicKey,
        *,
        changes: Changes | None = None,
        lasts: tuple[dt.timedelta, dt.timedelta] = (-DAY, 365 * DAY),
        signer: ec.EllipticCurvePrivateKey | None = None,
    ) -> bytes:
        """Issue the certificate of an EK, DER; `changes` replaces or (None) drops extensions."""
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder(self.name, x509.Name([]), key, x509.random_serial_number())
            .not_valid_before(now + lasts[0])
            .not_valid_after(now + lasts[1])
        )
        wanted = {**_ek_extensions(isinstance(key, rsa.RSAPublicKey)), **(changes or {})}
        for kind, value in wanted.items():
            if value is not None:
                is_critical = kind is not x509.ExtendedKeyUsage
                builder = builder.add_extension(value, critical=is_critical)
        certificate = builder.sign(signer or self.key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.DER)

    @staticmethod
    def authority(
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        signer: ec.EllipticCurvePrivateKey,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        usage = key_usage(key_cert_sign=True, crl_sign=True)
        return (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 365 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .sign(signer, hashes.SHA256())
        )

    def put(self, folder: Path) -> Path:
        """Write what swtpm_setup needs to let this vendor sign; return its configuration."""
        folder.mkdir()
        key = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (folder / "signkey.pem").write_bytes(key)
        (folder / "issuercert.pem").write_bytes(
            self._below.public_bytes(serialization.Encoding.PEM)
        )
        (folder / "localca.conf").write_text(
            f"statedir = {folder}\nsigningkey = {folder}/signkey.pem\n"
            f"issuercert = {folder}/issuercert.pem\ncertserial = {folder}/certserial\n"
        )
        (folder / "localca.options").write_text("--platform-manufacturer Test\n")
        setup = folder / "setup.conf"
        setup.write_text(
            f"create_certs_tool = {shutil.which('swtpm_localca', path=PATH)}\n"
            f"create_certs_tool_config = {folder}/localca.conf\n"
            f"create_certs_tool_options = {folder}/localca.options\nactive_pcr_banks = sha256\n"
        )
        return setup


class Swtpm:
    """One TPM: manufactured when it is made, running while it is entered."""

    def __init__(self, folder: Path, vendor: Vendor, *, certificates: bool = True) -> None:
        self.vendor = vendor
        self._state = folder / "tpm"
        self._state.mkdir(parents=True)
        self._log = folder / "tpm.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets = Path()
        made = ["--createek", "--create-ek-cert"] if certificates else []
        config = vendor.put(folder / "vendor")
        done = subprocess.run(
            ["swtpm_setup", "--tpm2", "--tpmstate", self._state, "--config", config, *made],
            env={**os.environ, "PATH": PATH},
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def tcti(self) -> str:
        return f"swtpm:path={self._sockets / 'tpm'}"

    def __enter__(self) -> Self:
        """Switch it on."""
        self._sockets = Path(tempfile.mkdtemp(prefix="swtpm-"))  # sun_path has 108 octets
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Switch it off."""
        self._stop()
        shutil.rmtree(self._sockets)

    def restart(self) -> None:
        """Switch it off and on."""
        self._stop()
        self._start()

    def extend(self, pcr: int, measured: bytes) -> None:
        """Measure something into a PCR of the SHA-256 bank."""
        tss = importlib.import_module("tpm2_pytss")  # an extra: only where there is a TPM
        digest = tss.TPMU_HA(sha256=hashlib.sha256(measured).digest())
        values = tss.TPML_DIGEST_VALUES([tss.TPMT_HA(hashAlg=tss.TPM2_ALG.SHA256, digest=digest)])
        with tss.ESAPI(self.tcti) as context:
            context.pcr_extend(tss.ESYS_TR(pcr), values)

    def _start(self) -> None:
        server = self._sockets / "tpm"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._state}"),
                    *("--server", f"type=unixio,path={server}"),
                    *("--ctrl", f"type=unixio,path={server}.ctrl"),
                    *("--flags", "not-need-init,startup-clear"),
                ],
                env={**os.environ, "PATH": PATH},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + _WAIT_S
        while not (server.exists() and Path(f"{server}.ctrl").exists()):
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < until, "swtpm does not open its sockets"
            time.sleep(0.01)  # there is nothing to wait on: the socket is there or not

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_WAIT_S)
            self._process = None
