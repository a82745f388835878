"""What the service asks the hub about users: who administers, which tokens and servers there are."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from perijove.model import UnavailableError

log = logging.getLogger(__name__)
KEPT = 30.0
"""Seconds for which the hub's word on a user is taken again."""
KEPT_LONG = 300.0
"""The same of a user who was no administrator, where only becoming one is waited for."""
PATIENCE = 10.0
"""Seconds that the hub has to answer."""
MOST_KEPT = 10_000


class HubRefusalError(Exception):
    """The hub does not let the service do this: its role lacks a scope."""


@dataclass(frozen=True, slots=True)
class HubUser:
    """A user as the hub has them."""

    admin: bool
    servers: dict[str, float]
    """Name -> when it was started, seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class HubToken:
    """A token of the hub's."""

    id: str
    created: float


class Hub:
    """The hub's REST API at `url`, asked with the service's `token`.

    Its role needs ``read:users``, ``read:servers``, ``tokens`` and ``delete:servers``.
    """

    def __init__(self, url: str, token: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._token, self._clock = url.rstrip("/"), token, clock
        self._known: dict[str, tuple[float, HubUser | None]] = {}
        self._created: dict[tuple[str, str], float] = {}

    async def user(self, name: str, kept: float = 0.0) -> HubUser | None:
        """A user; None when there is none. What was learned `kept` seconds ago may be the answer.

        Raises :class:`UnavailableError` and :class:`HubRefusalError`.
        """
        known = self._known.get(name)
        if known is not None and self._clock() - known[0] < kept:
            return known[1]
        answer = await self._ask("GET", f"/users/{quote(name, safe='')}")
        found = None if answer is None else _user(answer)
        if len(self._known) >= MOST_KEPT:
            self._known.clear()
        self._known[name] = (self._clock(), found)
        return found

    def forget(self, name: str) -> None:
        """Ask anew about a user."""
        self._known.pop(name, None)

    async def tokens(self, name: str) -> list[HubToken]:
        """The tokens of a user, those of sessions among them."""
        answer = await self._ask("GET", f"/users/{quote(name, safe='')}/tokens") or {}
        return [HubToken(one["id"], _moment(one["created"])) for one in answer.get("api_tokens", [])]

    async def created(self, name: str, token: str) -> float:
        """When a token was made; 0 when that is not known."""
        if (known := self._created.get((name, token))) is not None:
            return known
        try:
            path = f"/users/{quote(name, safe='')}/tokens/{quote(token, safe='')}"
            answer = await self._ask("GET", path)
        except HubRefusalError:
            return 0.0
        if answer is None:
            return 0.0
        if len(self._created) >= MOST_KEPT:
            self._created.clear()
        made = self._created[(name, token)] = _moment(answer.get("created"))
        return made

    async def delete_token(self, name: str, token: str) -> None:
        """Revoke a token."""
        await self._ask("DELETE", f"/users/{quote(name, safe='')}/tokens/{quote(token, safe='')}")

    async def stop_server(self, name: str, server: str) -> None:
        """Stop a server; one that is on its way is stopped when it is there."""
        path = f"/users/{quote(name, safe='')}/servers/{quote(server, safe='')}"
        await self._ask("DELETE", path if server else f"/users/{quote(name, safe='')}/server")

    async def _ask(self, method: str, path: str) -> dict[str, Any] | None:
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            async with httpx.AsyncClient(timeout=PATIENCE, headers=headers) as http:
                answer = await http.request(method, f"{self._url}{path}")
        except httpx.HTTPError as error:
            raise UnavailableError("the hub does not answer") from error
        if answer.status_code == 404:
            return None
        if answer.status_code in {401, 403}:
            raise HubRefusalError(f"{method} {path}: {answer.status_code}")
        if answer.is_error:
            raise UnavailableError(f"the hub answered {answer.status_code}")
        found = answer.json() if answer.content else {}
        return found if isinstance(found, dict) else {}


def _user(answer: dict[str, Any]) -> HubUser:
    servers = answer.get("servers") or {}
    return HubUser(
        bool(answer.get("admin")), {name: _moment(one.get("started")) for name, one in servers.items()}
    )


def _moment(text: Any) -> float:
    """The hub writes ISO 8601 in UTC; 0 for what is no time, which counts as long ago."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
