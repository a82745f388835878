"""A node's certificate is made anew before it expires: the node asks over the link that it still has open.

The key stays the node's. What is certified anew is the name that the old certificate has, and never what the
node calls itself.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from perijove.model import ForbiddenError
from perijove_spawners.fabric.refused import serials_in
from perijove_spawners.fabric.tls import AUTHORITY, AUTHORITY_KEY, RENEW, Authority, write_pair


def expiring(directory: Path, now: datetime.datetime) -> bytes | None:
    """The certificate of the node of that directory, PEM, when it is time to have it made anew.

    None also where the authority is, which makes it anew by itself, and with the shared key of earlier
    versions.
    """
    pair = directory / "node.pem"
    if (directory / AUTHORITY_KEY).is_file() or not pair.is_file():
        return None
    mine = x509.load_pem_x509_certificate(pair.read_bytes())
    if mine.not_valid_after_utc - now > RENEW:
        return None
    return mine.public_bytes(serialization.Encoding.PEM)


def renewed(authority: Authority, directory: Path, old: bytes) -> tuple[str, x509.Certificate]:
    """The node's name, and a certificate for the key of an `old` one. `directory`: where refused ones stand.

    :class:`ForbiddenError` unless `old` is a node's, of this authority, has not expired and is not refused.
    """
    try:
        known = x509.load_pem_x509_certificate(old)
        known.verify_directly_issued_by(authority.certificate)
        [unit] = known.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        [name] = known.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, TypeError, InvalidSignature):
        raise ForbiddenError("that is no certificate of this installation") from None
    public, now = known.public_key(), datetime.datetime.now(datetime.UTC)
    good = known.not_valid_before_utc <= now <= known.not_valid_after_utc
    if unit.value != "node" or not isinstance(public, ec.EllipticCurvePublicKey) or not good:
        raise ForbiddenError("that is no certificate of a node that holds")
    if known.serial_number in serials_in(directory):
        raise ForbiddenError("that certificate is refused")
    return str(name.value), authority.issue(public, "node", str(name.value))


def take(directory: Path, new: bytes) -> bool:
    """Use a certificate for the node's own key, when it is of the authority that is known. Whether it was."""
    pair = directory / "node.pem"
    try:
        made = x509.load_pem_x509_certificate(new)
        made.verify_directly_issued_by(x509.load_pem_x509_certificate((directory / AUTHORITY).read_bytes()))
        key = serialization.load_pem_private_key(pair.read_bytes(), None)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != made.public_key():
        return False
    write_pair(pair, made, key)
    return True
