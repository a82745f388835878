"""The key of the Dask links: one pair for all parties of an installation, made once and kept.

Whoever holds it may send work to every node; so it lies in a directory of mode 0700, and both ends of
every connection prove that they have it. A remote node gets a copy by the operator's hand.
"""

from __future__ import annotations

import datetime
import os
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed.security import Security

PAIR = "dask.pem"
YEARS = 20


def ensure_tls(directory: Path) -> Security:
    """Security of an installation's Dask links, made on first use; safe to call from several processes."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    pair = directory / PAIR
    if not pair.exists():
        _make(pair)
    return load_tls(directory)


def load_tls(directory: Path) -> Security:
    """Security of an installation whose pair exists; ``FileNotFoundError`` otherwise."""
    pair = directory / PAIR
    if not pair.is_file():
        raise FileNotFoundError(f"{pair}: copy it from the state directory of the installation (tls/{PAIR})")
    path = str(pair)
    return Security(
        require_encryption=True,
        tls_ca_file=path,
        tls_client_cert=path,
        tls_scheduler_cert=path,
        tls_worker_cert=path,
    )


def _make(pair: Path) -> None:
    temporary = pair.with_name(f".{PAIR}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_pair())
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, does not replace what another process made meanwhile.
        pair.hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)


def _pair() -> bytes:
    """A new key with a certificate signed by itself, which is also the authority that it is checked by."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "perijove")])
    now = datetime.datetime.now(datetime.UTC)
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of hosts differ.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage),
            critical=True,
        )
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + private
