"""Certificates of the Dask links that are refused, though the authority signed them: a list of revoked ones
(CRL, RFC 5280, section 5) beside the authority's certificate, which every party looks at when it connects.

A list holds only for connections made after it was read. So scheduler and nodes connect anew when it changes,
which ends what whoever is refused has open; jobs outlive that.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from distributed.security import Security

REFUSED = "refused.pem"
_END = b"-----END CERTIFICATE-----\n"


class Checked(Security):
    """Links on which refused certificates are refused, as the list says when a connection is set up."""

    def _get_tls_context(self, tls: dict[str, Any], purpose: ssl.Purpose) -> ssl.SSLContext | None:
        context: ssl.SSLContext | None = super()._get_tls_context(tls, purpose)  # type: ignore[no-untyped-call]
        refused = Path(tls["ca_file"]).with_name(REFUSED)
        if context is not None and refused.is_file():
            context.load_verify_locations(cafile=refused)
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
        return context


def serials_in(directory: Path) -> frozenset[int]:
    """The serial numbers of the certificates that are refused."""
    known = _list_in(directory)
    return frozenset() if known is None else frozenset(one.serial_number for one in known)


def stamp(directory: Path) -> bytes:
    """Changes whenever the list does."""
    try:
        return (directory / REFUSED).read_bytes()
    except FileNotFoundError:
        return b""


def news(directory: Path) -> bytes:
    """What nodes on other hosts are told: the authority's certificate and the list. Empty without a list."""
    from perijove_spawners.fabric.tls import AUTHORITY

    found = stamp(directory)
    return (directory / AUTHORITY).read_bytes() + found if found else b""


def accept(directory: Path, told: bytes) -> bool:
    """Take over what a service told, where the authority is the one that is known and the list is newer.

    Whether it was. What is not signed by the authority changes nothing.
    """
    from perijove_spawners.fabric.tls import AUTHORITY, write_secret

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
    known = _list_in(directory)
    newer = known is None or number_of(found) > number_of(known)
    if not (same and newer and found.is_signature_valid(key)):
        return False
    # The authority's certificate first: that of an earlier version may not sign lists.
    write_secret(directory / AUTHORITY, authority.public_bytes(serialization.Encoding.PEM))
    write_secret(directory / REFUSED, text)
    return True


def number_of(found: x509.CertificateRevocationList) -> int:
    """How many lists came before it."""
    return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _list_in(directory: Path) -> x509.CertificateRevocationList | None:
    text = stamp(directory)
    return x509.load_pem_x509_crl(text) if text else None
