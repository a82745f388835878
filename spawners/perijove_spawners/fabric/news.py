"""What nodes on other hosts are told of certificates that are refused (see :mod:`.refused`), and believe."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from perijove_spawners.fabric.refused import REFUSED, list_in, stamp
from perijove_spawners.fabric.tls import AUTHORITY, write_secret

_END = b"-----END CERTIFICATE-----\n"


def news(directory: Path) -> bytes:
    """What nodes on other hosts are told: the authority's certificate and the list. Empty without a list."""
    found = stamp(directory)
    return (directory / AUTHORITY).read_bytes() + found if found else b""


def accept(directory: Path, told: bytes) -> bool:
    """Take over what a service told, where the authority is the one that is known and the list is newer.

    Whether it was. What is not signed by the authority changes nothing.
    """
    certificate, end, text = told.partition(_END)
    try:
        mine = x509.load_pem_x509_certificate((directory / AUTHORITY).read_bytes())
        authority = x509.load_pem_x509_certificate(certificate + end)
        found = x509.load_pem_x509_crl(text)
    except (OSError, ValueError):
        return False
    key = mine.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    same = authority.public_key() == key and authority.subject == mine.subject
    known = list_in(directory)
    newer = known is None or _number_of(found) > _number_of(known)
    if not (same and newer and found.is_signature_valid(key)):
        return False
    # The authority's certificate first: that of an earlier version may not sign lists.
    write_secret(directory / AUTHORITY, authority.public_bytes(serialization.Encoding.PEM))
    write_secret(directory / REFUSED, text)
    return True


def _number_of(found: x509.CertificateRevocationList) -> int:
    """How many lists came before it."""
    return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
