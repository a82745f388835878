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
from distributed.security import Security

REFUSED = "refused.pem"


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
    known = list_in(directory)
    return frozenset() if known is None else frozenset(one.serial_number for one in known)


def stamp(directory: Path) -> bytes:
    """Changes whenever the list does."""
    try:
        return (directory / REFUSED).read_bytes()
    except FileNotFoundError:
        return b""


def list_in(directory: Path) -> x509.CertificateRevocationList | None:
    """The list itself; None where nothing was ever refused."""
    text = stamp(directory)
    return x509.load_pem_x509_crl(text) if text else None
