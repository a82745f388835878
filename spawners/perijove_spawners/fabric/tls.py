"""Keys and certificates of the Dask links: both ends of each prove that they belong to this Perijove.

The installation is its own authority. Service, scheduler and each node have a key of their own, with a
certificate that the authority signed; its key stays in the service's directory (mode 0700)::

    ca.key, ca.pem     the authority
    service.pem, scheduler.pem, node.pem     a party's certificate and key
    refused.pem        certificates that are refused (see :mod:`.refused`)

What connects with such a certificate may have any other party run code: Dask knows no roles. So a certificate
is as good as the host it lies on, which is what a node is trusted with anyway.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import secrets
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from distributed.security import Security

from perijove_spawners.fabric.refused import REFUSED, Checked, serials_in

Party = Literal["service", "scheduler", "node"]
AUTHORITY, AUTHORITY_KEY = "ca.pem", "ca.key"
SHARED = "dask.pem"
"""The one key pair that all parties of earlier versions had, which is its own authority."""
AUTHORITY_YEARS, YEARS = 20, 5
RENEW = datetime.timedelta(days=365)
"""A party's certificate is made anew, where the authority is, when no more than this is left of it."""
SKEW = datetime.timedelta(days=1)
"""Clocks of hosts differ."""


class Authority:
    """Signs the certificates of an installation's parties."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key, self.certificate = key, certificate

    @classmethod
    def at(cls, directory: Path) -> Self:
        """That of the installation, made on first use; safe to call from several processes."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(directory):
            if not (directory / AUTHORITY).exists():
                _make_authority(directory)
        key = serialization.load_pem_private_key((directory / AUTHORITY_KEY).read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(key, x509.load_pem_x509_certificate((directory / AUTHORITY).read_bytes()))

    @property
    def pem(self) -> str:
        """Its certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def fingerprint(self) -> str:
        """By which who joins knows it; see :func:`fingerprint`."""
        return fingerprint(self.certificate)

    def issue(
        self,
        public: ec.EllipticCurvePublicKey,
        party: Party,
        name: str,
        now: datetime.datetime | None = None,
        life: datetime.timedelta = datetime.timedelta(days=365 * YEARS),
    ) -> x509.Certificate:
        """A certificate for the holder of `public`, which may listen unless it is the service."""
        now = now or datetime.datetime.now(datetime.UTC)
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        uses += [] if party == "service" else [ExtendedKeyUsageOID.SERVER_AUTH]
        identifier = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return (
            _certificate(_subject(party, name), self.certificate.subject, public, now, life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    def refuse(self, directory: Path, serials: Iterable[int]) -> bool:
        """Refuse these certificates from now on too, also after a restart; whether any was not refused yet.

        Parties learn of it as :mod:`.refused` says.
        """
        with _alone(directory):
            old = serials_in(directory)
            all_ = sorted(old | set(serials))
            if len(all_) == len(old):
                return False
            now, life = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=365 * AUTHORITY_YEARS)
            made = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
            made = made.last_update(now - SKEW).next_update(now + life)
            made = made.add_extension(x509.CRLNumber(len(all_)), critical=False)
            for serial in all_:
                one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
                made = made.add_revoked_certificate(one.build())
            signed = made.sign(self._key, hashes.SHA256())
            _let_it_refuse(directory)
            write_secret(directory / REFUSED, signed.public_bytes(serialization.Encoding.PEM))
        return True

    def sign(self, text: bytes) -> bytes:
        """A signature that ``ca.pem`` proves (ECDSA with SHA-256)."""
        return self._key.sign(text, ec.ECDSA(hashes.SHA256()))


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of its public key (RFC 5280, ``SubjectPublicKeyInfo``), as kubeadm(1) pins an authority."""
    return sha256(_public(certificate.public_key())).hexdigest()  # type: ignore[arg-type]


def ensure_tls(directory: Path, party: Party, name: str = "") -> Security:
    """Security of `party` where the authority is; what is missing, or about to expire, is made."""
    authority = Authority.at(directory)
    pair = directory / f"{party}.pem"
    with _alone(directory):
        if not _lasts(pair, authority):
            key = ec.generate_private_key(ec.SECP256R1())
            write_pair(pair, authority.issue(key.public_key(), party, name or party), key)
    return _security(directory / AUTHORITY, pair)


def load_tls(directory: Path, name: str = "") -> Security:
    """Security of a node: with the certificate that it was given, or makes itself on the service's host.

    Of a version without certificates of their own the shared one. ``FileNotFoundError`` when there is none.
    """
    if (directory / AUTHORITY_KEY).is_file():
        return ensure_tls(directory, "node", name)
    pair, shared = directory / "node.pem", directory / SHARED
    if pair.is_file():
        return _security(directory / AUTHORITY, pair)
    if shared.is_file():
        return _security(shared, shared)
    raise FileNotFoundError(f"{pair}: let the node join, by perijove node --join URL")


def write_pair(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """Write both to `path`, mode 0600, whole or not at all."""
    write_secret(path, certificate.public_bytes(serialization.Encoding.PEM) + _private(key))


def write_secret(path: Path, content: bytes) -> None:
    """Replace `path` by a file of mode 0600 that never was seen half written."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _security(authority: Path, pair: Path) -> Security:
    return Checked(  # type: ignore[no-untyped-call]
        require_encryption=True,
        tls_ca_file=str(authority),
        tls_client_cert=str(pair),
        tls_scheduler_cert=str(pair),
        tls_worker_cert=str(pair),
        tls_min_version=ssl.TLSVersion.TLSv1_3,
    )


def _make_authority(directory: Path) -> None:
    """The key first: whoever sees the certificate finds it. Earlier versions' pair goes on as authority."""
    shared = directory / SHARED
    if shared.exists():
        content = shared.read_bytes()
        key = serialization.load_pem_private_key(content, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        certificate = x509.load_pem_x509_certificate(content)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _own_certificate(key)
    write_secret(directory / AUTHORITY_KEY, _private(key))
    write_secret(directory / AUTHORITY, certificate.public_bytes(serialization.Encoding.PEM))


def _let_it_refuse(directory: Path) -> None:
    """Have the authority's certificate allow lists of refused ones; those of earlier versions did not.

    With the same key and name: what it signed before holds as before, and tokens know it by the key. Only who
    still shows the key that all once shared gets no connection any more: its certificate was the authority's.
    """
    known = x509.load_pem_x509_certificate((directory / AUTHORITY).read_bytes())
    usage = known.extensions.get_extension_for_class(x509.KeyUsage).value
    if usage.crl_sign:
        return
    key = serialization.load_pem_private_key((directory / AUTHORITY_KEY).read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    anew = _own_certificate(key, known.subject)
    write_secret(directory / AUTHORITY, anew.public_bytes(serialization.Encoding.PEM))


def _own_certificate(key: ec.EllipticCurvePrivateKey, name: x509.Name | None = None) -> x509.Certificate:
    name = name or _subject("authority", f"Perijove {secrets.token_hex(4)}")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    now, life = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=365 * AUTHORITY_YEARS)
    return (
        _certificate(name, name, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(key, hashes.SHA256())
    )


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - SKEW).not_valid_after(now + life)


def _subject(party: str, name: str) -> x509.Name:
    unit = x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, party)
    return x509.Name([unit, x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _usage(*, signs: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _lasts(pair: Path, authority: Authority) -> bool:
    """Whether a party's certificate is this authority's, and holds for long enough."""
    if not pair.is_file():
        return False
    try:
        certificate = x509.load_pem_x509_certificate(pair.read_bytes())
        certificate.verify_directly_issued_by(authority.certificate)
    except Exception:
        return False  # another authority's, or damaged
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return left > RENEW


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Among the processes that make files in `directory`."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
