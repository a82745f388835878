"""What an ID token must be (OpenID Connect Core 1.0, 3.1.3.7), decided without any I/O."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256, sha384, sha512
from hmac import compare_digest
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

from perijove_hub.auth.refusals import ForgedAnswerError

ASYMMETRIC = {
    "RS256": "RSA",
    "RS384": "RSA",
    "RS512": "RSA",
    "PS256": "RSA",
    "PS384": "RSA",
    "PS512": "RSA",
    "ES256": "EC",
    "ES384": "EC",
    "ES512": "EC",
    "EdDSA": "OKP",
}
"""Algorithms that are ever accepted, with the type of their keys. Never ``none``, never one with a shared
secret: a provider's public key would do as that secret (RFC 8725, 2.1)."""

LEEWAY = 60.0
"""Seconds by which clocks may differ."""

LONGEST = 64 * 1024
"""Characters of a token."""

HASHES = {"256": sha256, "384": sha384, "512": sha512}


class UnknownKeyError(ForgedAnswerError):
    """The key that signed is not among those known; they may have changed since."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must say."""

    issuer: str
    client_id: str
    algorithms: frozenset[str]
    nonce: str | None
    """None for tokens of a refresh, where it may be missing."""
    access_token: str = ""
    subject: str | None = None
    """None when anybody may log in; else who it was before."""


def public_keys(document: Any) -> list[Key]:
    """The keys of a JWK set (RFC 7517) that could verify; what cannot be read is passed over."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ForgedAnswerError("the provider's keys are no JWK set")
    found = []
    for one in listed:
        if not isinstance(one, dict) or one.get("use") not in (None, "sig"):
            continue
        if one.get("kty") not in list(ASYMMETRIC.values()):
            continue
        try:
            found.append(JWKRegistry.import_key(one))
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return found


def check_id_token(token: Any, keys: Sequence[Key], expected: Expected, now: float) -> dict[str, Any]:
    """The claims of a token that is genuine, for this hub, for this login and in force at `now`.

    Raises :class:`UnknownKeyError` when the key is not among `keys`, else :class:`ForgedAnswerError`.
    """
    if not isinstance(token, str) or len(token) > LONGEST:
        raise ForgedAnswerError("no ID token")
    algorithm, kid = _header(token)
    if algorithm not in expected.algorithms or algorithm not in ASYMMETRIC:
        raise ForgedAnswerError("the ID token is signed in a way that is not accepted")
    claims = _verified(token, algorithm, kid, keys)
    _check_claims(claims, expected, now)
    _check_access_token(claims, algorithm, expected.access_token)
    return claims


def _header(token: str) -> tuple[str, str | None]:
    try:
        raw = token.split(".")[0]
        header = json.loads(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)))
        algorithm, kid = header["alg"], header.get("kid")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ForgedAnswerError("the ID token is no JWS") from error
    if not isinstance(algorithm, str) or not (kid is None or isinstance(kid, str)):
        raise ForgedAnswerError("the ID token is no JWS")
    return algorithm, kid


def _verified(token: str, algorithm: str, kid: str | None, keys: Sequence[Key]) -> dict[str, Any]:
    suitable = [
        key
        for key in keys
        if key.key_type == ASYMMETRIC[algorithm]
        and key.get("alg") in (None, algorithm)
        and (kid is None or key.get("kid") == kid)
    ]
    if not suitable:
        raise UnknownKeyError("the ID token is signed with a key that the provider does not publish")
    for key in suitable:
        try:
            payload = jws.deserialize_compact(token, key, algorithms=[algorithm]).payload
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        try:
            claims = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise ForgedAnswerError("the ID token holds no claims") from error
        if not isinstance(claims, dict):
            raise ForgedAnswerError("the ID token holds no claims")
        return claims
    raise ForgedAnswerError("the signature of the ID token is wrong")


def _check_claims(claims: dict[str, Any], expected: Expected, now: float) -> None:
    if claims.get("iss") != expected.issuer:
        raise ForgedAnswerError("the ID token is of another issuer")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if expected.client_id not in audiences:
        raise ForgedAnswerError("the ID token is for another audience")
    authorized = claims.get("azp", expected.client_id if len(audiences) == 1 else None)
    if authorized != expected.client_id:
        raise ForgedAnswerError("the ID token was made for another party (azp)")
    if _moment(claims, "exp") + LEEWAY <= now:
        raise ForgedAnswerError("the ID token has expired")
    if _moment(claims, "iat") - LEEWAY > now:
        raise ForgedAnswerError("the ID token is from the future")
    if "nbf" in claims and _moment(claims, "nbf") - LEEWAY > now:
        raise ForgedAnswerError("the ID token is not in force yet")
    nonce = claims.get("nonce")
    if expected.nonce is not None and not (isinstance(nonce, str) and _same(nonce, expected.nonce)):
        raise ForgedAnswerError("the ID token is of another login (nonce)")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise ForgedAnswerError("the ID token names nobody (sub)")
    if expected.subject is not None and subject != expected.subject:
        raise ForgedAnswerError("the ID token is about somebody else")


def _moment(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ForgedAnswerError(f"the ID token lacks {name}")
    return float(value)


def _check_access_token(claims: dict[str, Any], algorithm: str, access_token: str) -> None:
    """``at_hash``, where it is given (3.1.3.8): an access token of somebody else was not slipped in."""
    given, digest = claims.get("at_hash"), HASHES.get(algorithm[-3:])
    if given is None or digest is None or not access_token:
        return
    whole = digest(access_token.encode()).digest()
    right = base64.urlsafe_b64encode(whole[: len(whole) // 2]).rstrip(b"=").decode()
    if not isinstance(given, str) or not _same(given, right):
        raise ForgedAnswerError("the access token does not belong to the ID token (at_hash)")


def _same(one: str, other: str) -> bool:
    return compare_digest(one.encode(), other.encode())
