"""Public keys of SSH: which are taken, and what is kept of them."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from perijove.model import SshKey

KINDS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
"""Of keys (RFC 4253, 5656, 8709; OpenSSH's PROTOCOL.u2f): no DSA, and no certificates."""
RSA_BITS = 3072
LONGEST = 2000
"""Characters of a line; a key of 8192 bits has 1400."""
COMMENT = 100


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that was looked at."""

    kind: str
    blob: bytes
    comment: str

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen(1) -l prints it."""
        return "SHA256:" + base64.b64encode(sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def line(self) -> str:
        """For ``authorized_keys`` (sshd(8)), without options."""
        return " ".join(filter(None, (self.kind, base64.b64encode(self.blob).decode(), self.comment)))

    def told(self, added: float) -> SshKey:
        """As its owner sees it."""
        return SshKey(fingerprint=self.fingerprint, kind=self.kind, comment=self.comment, added=added)


def public_key(line: str) -> PublicKey:
    """The key in one line as a file ``.pub`` has it.

    Options before the key are refused: sshd(8) would do what they say. ``ValueError`` says what would be
    taken.
    """
    text = line.strip(" \t\r\n")
    if len(text) > LONGEST or not text.isprintable():
        raise ValueError("must be one line as in ~/.ssh/id_ed25519.pub")
    kind, _, rest = text.partition(" ")
    encoded, _, comment = rest.strip().partition(" ")
    if kind not in KINDS:
        raise ValueError(f"must begin with one of {', '.join(KINDS)}; no options, no certificates")
    try:
        blob = base64.b64decode(encoded, validate=True)
        key = load_ssh_public_key(f"{kind} {base64.b64encode(blob).decode()}".encode())
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        raise ValueError(f"this is no key of the kind {kind}") from None
    if isinstance(key, RSAPublicKey) and key.key_size < RSA_BITS:
        raise ValueError(f"an RSA key must have {RSA_BITS} bits at least, and this has {key.key_size}")
    return PublicKey(kind, blob, comment.strip()[:COMMENT])
