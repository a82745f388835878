"""How a host joins: a token that is good once, a key that never leaves the host, a certificate for it.

The token is the private key of a signature (Ed25519), of which the service keeps only the public key's hash,
and the fingerprint of the authority that signs the links' certificates, as kubeadm(1) pins it. The request is
signed with the token and the answer with the authority's key. So neither who listens on the way nor who
pretends to be the service gains anything, whether the service is reached by HTTPS, by a private authority's
HTTPS, or by plain HTTP: nothing in them is secret, and neither can be changed.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from perijove.model import ForbiddenError, OperatorError
from perijove_spawners.fabric.tls import AUTHORITY, Authority, fingerprint, write_pair, write_secret

PREFIX = "pjn_"
JOINED = "joined.json"
"""What a node that has joined knows of its service, in its state directory."""
PATIENCE = 30.0
"""Seconds that the service has to answer."""
_REQUEST, _ANSWER = b"perijove join request\0", b"perijove join answer\0"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What an administrator hands to the host."""

    seed: bytes
    fingerprint: str
    """Of the authority, as :func:`perijove_spawners.fabric.tls.fingerprint` has it."""

    @classmethod
    def make(cls, authority: Authority) -> Self:
        """A new one."""
        return cls(secrets.token_bytes(32), authority.fingerprint)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The token in `text`. :class:`OperatorError` when there is none; it does not repeat `text`."""
        seed, dot, pinned = text.strip().removeprefix(PREFIX).partition(".")
        try:
            raw = base64.urlsafe_b64decode(seed + "=" * (-len(seed) % 4))
        except (ValueError, binascii.Error):
            raw = b""
        good = len(raw) == 32 and dot and len(pinned) == 64 and set(pinned) <= set("0123456789abcdef")
        if not text.strip().startswith(PREFIX) or not good:
            raise OperatorError("that is no token of `perijove join-token create`; copy all of its line")
        return cls(raw, pinned)

    @property
    def text(self) -> str:
        """As people copy it."""
        seed = base64.urlsafe_b64encode(self.seed).decode().rstrip("=")
        return f"{PREFIX}{seed}.{self.fingerprint}"

    @property
    def key(self) -> Ed25519PrivateKey:
        """What requests are signed with."""
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def hash(self) -> str:
        """What the service keeps of it."""
        return hash_of(self.key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"JoinToken({self.hash[:8]})"


def hash_of(public: bytes) -> str:
    """By which the service finds a token: of its public key."""
    return sha256(public).hexdigest()


@dataclass(frozen=True, slots=True)
class Joined:
    """What a node needs to work for a service, beside its certificate."""

    node: str
    scheduler: str
    store: str
    installation: str

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """What the node of that state directory was told; None when it never joined."""
        try:
            return cls(**json.loads((directory / JOINED).read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise OperatorError(
                f"{directory / JOINED} cannot be used ({error}); let the node join anew"
            ) from error


def request_of(token: JoinToken, node: str, key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """What the host sends: a request for a certificate (PKCS #10, RFC 2986), signed with the token."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node[:64])])
    built = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    csr = built.public_bytes(serialization.Encoding.PEM).decode()
    return {
        "node": node,
        "csr": csr,
        "key": _b64(token.key.public_key().public_bytes_raw()),
        "signature": _b64(token.key.sign(_signed(node, csr))),
    }


def checked_request(node: str, csr: str, key: str, signature: str) -> tuple[str, ec.EllipticCurvePublicKey]:
    """The hash of the token that signed a request, and the key that is to be certified.

    :class:`ForbiddenError` unless whoever sent it has both. Whether the token is good is not looked at.
    """
    try:
        public = base64.b64decode(key, validate=True)
        Ed25519PublicKey.from_public_bytes(public).verify(
            base64.b64decode(signature, validate=True), _signed(node, csr)
        )
        asked = x509.load_pem_x509_csr(csr.encode())
        wanted = asked.public_key()
        if asked.is_signature_valid and isinstance(wanted, ec.EllipticCurvePublicKey):
            return hash_of(public), wanted
    except (ValueError, TypeError, InvalidSignature):
        pass
    raise ForbiddenError("this request to join is not signed by its token and its key")


def answer_of(
    authority: Authority, csr: str, certificate: x509.Certificate, joined: Joined
) -> dict[str, str]:
    """What the service answers, signed by the authority."""
    said = {
        **asdict(joined),
        "certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(),
        "authority": authority.pem,
        "request": sha256(csr.encode()).hexdigest(),
    }
    text = json.dumps(said)
    return {"answer": text, "signature": _b64(authority.sign(_ANSWER + text.encode()))}


def checked_answer(
    token: JoinToken, csr: str, key: ec.EllipticCurvePrivateKey, answer: Any
) -> tuple[Joined, x509.Certificate, x509.Certificate]:
    """What was answered, the node's certificate and the authority's.

    :class:`OperatorError` unless the authority that the token names answered this very request.
    """
    try:
        text, said = str(answer["answer"]), json.loads(answer["answer"])
        authority = x509.load_pem_x509_certificate(said["authority"].encode())
        if fingerprint(authority) != token.fingerprint:
            raise OperatorError("who answers is not the service that the token is of; nothing was joined")
        public = authority.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        public.verify(
            base64.b64decode(answer["signature"], validate=True),
            _ANSWER + text.encode(),
            ec.ECDSA(hashes.SHA256()),
        )
        certificate = x509.load_pem_x509_certificate(said["certificate"].encode())
        certificate.verify_directly_issued_by(authority)
        mine = certificate.public_key() == key.public_key()
        if not mine or said["request"] != sha256(csr.encode()).hexdigest():
            raise OperatorError("the service answered another request; nothing was joined")
        joined = Joined(said["node"], said["scheduler"], said["store"], said["installation"])
    except (KeyError, TypeError, ValueError, AttributeError, InvalidSignature) as error:
        raise OperatorError("what the service answered is not signed by it; nothing was joined") from error
    return joined, certificate, authority


def join(url: str, token: JoinToken, node: str, directory: Path) -> Joined:
    """Join the service at `url` as `node`; key, certificates and :data:`JOINED` lie in `directory` then.

    :class:`OperatorError` says why not; the token may be used up all the same when the answer was lost.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    request = request_of(token, node, key)
    joined, certificate, authority = checked_answer(token, request["csr"], key, _ask(url, request))
    tls = directory / "tls"
    tls.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_secret(tls / AUTHORITY, authority.public_bytes(serialization.Encoding.PEM))
    write_pair(tls / "node.pem", certificate, key)
    write_secret(directory / JOINED, json.dumps(asdict(joined), indent=1).encode())
    return joined


def _ask(url: str, request: dict[str, str]) -> Any:
    import httpx

    place = f"{url.strip().rstrip('/').removesuffix('/api/v1')}/api/v1/nodes/join"
    try:
        # Who answers is known by the authority's signature; see the module's text.
        answer = httpx.post(place, json=request, timeout=PATIENCE, verify=False)  # noqa: S501
        found = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise OperatorError(f"{place} does not answer as a Perijove service: {error}") from error
    if answer.status_code != 201:
        said = found.get("detail") if isinstance(found, dict) else None
        raise OperatorError(f"the service refuses: {said or answer.status_code}")
    return found


def _signed(node: str, csr: str) -> bytes:
    return _REQUEST + node.encode() + b"\0" + csr.encode()


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
