"""The secrets themselves: how they look, and what of them is kept."""

from __future__ import annotations

import secrets
from hashlib import sha256

PREFIX = "pjt_"
"""Before 43 characters of base64url: programs that look for leaked secrets know it by that."""


def new_secret() -> str:
    """A token with 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is kept of a secret: its SHA-256 in hex. 256 random bits need neither salt nor stretching."""
    return sha256(secret.encode(errors="surrogatepass")).hexdigest()
