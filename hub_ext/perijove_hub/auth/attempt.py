"""A login that was begun: what this browser has to bring back."""

from __future__ import annotations

import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256

VALID = 600
"""Seconds for a person to log in at the provider."""

REMEMBERED = 50_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """Kept in a signed cookie of its own, so that several tabs may log in at once."""

    provider: str
    state: str
    nonce: str
    verifier: str
    """PKCE (RFC 7636)."""
    redirect_uri: str
    next: str

    @classmethod
    def begin(cls, provider: str, redirect_uri: str, next_url: str) -> Attempt:
        """A new one, nothing of which can be guessed."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        return cls(provider, state, nonce, verifier, redirect_uri, next_url)

    def saved(self) -> str:
        """For :meth:`load`."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: bytes) -> Attempt:
        """What :meth:`saved` made."""
        return cls(**json.loads(text))


def cookie_of(state: str) -> str:
    """The cookie's name of the attempt with this state."""
    return f"perijove-login-{sha256(state.encode()).hexdigest()[:16]}"


class Spent:
    """States that came back already: each does so once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, float] = OrderedDict()

    def spend(self, state: str) -> bool:
        """Whether this was the first time."""
        now = self._clock()
        while self._seen and (
            len(self._seen) >= REMEMBERED or now - next(iter(self._seen.values())) > 2 * VALID
        ):
            self._seen.popitem(last=False)
        if state in self._seen:
            return False
        self._seen[state] = now
        return True
