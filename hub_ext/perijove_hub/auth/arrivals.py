"""Who arrived, told to the service, which says who that is here and whether they may come in."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from perijove_hub.auth.fetching import trusted
from perijove_hub.auth.refusals import ProviderDownError

PATIENCE = 8.0
"""Seconds to wait for a service that is being started again."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a provider gave to ask again later; only ever kept encrypted."""

    refresh_token: str = field(default="", repr=False)
    id_token: str = field(default="", repr=False)
    expires_at: float | None = None
    """When the access token ends, and with it what was said of the person."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Somebody as a provider, a directory or this machine knows them."""

    provider: str
    subject: str
    """What the provider never gives to another."""
    username: str
    email: str = ""
    email_verified: bool = False
    full_name: str = ""
    groups: tuple[str, ...] = ()
    session: Session = Session()

    def body(self, invitation: str, address: str) -> dict[str, Any]:
        """An arrival, as ``POST /api/v1/arrivals`` takes it."""
        return {
            "provider": self.provider,
            "subject": self.subject,
            "username": self.username,
            "email": self.email,
            "email_verified": self.email_verified,
            "full_name": self.full_name,
            "groups": list(self.groups),
            "invitation": invitation or None,
            "address": address,
        }


class Standing(BaseModel):
    """What the service says of somebody."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str | None = None
    state: Literal["active", "waiting", "disabled", "expired", "removed", "refused"]
    message: str = ""
    admin: bool | None = None
    groups: list[str] = []
    valid_from: float = 0.0
    """Sessions that began before are of no use."""


class Reception:
    """The service, as the hub's login asks it. `api` is its address with its prefix."""

    def __init__(self, api: str, token_file: Path, patience: float = PATIENCE) -> None:
        self._api, self._token_file, self._patience = f"{api}/api/v1", token_file, patience

    async def arrive(self, verified: Verified, invitation: str, address: str) -> Standing:
        """What becomes of somebody who proved who they are.

        Raises :class:`ProviderDownError` when the service does not answer for some seconds.
        """
        return await self._patiently("POST", "/arrivals", verified.body(invitation, address))

    async def refused(self, provider: str, reason: str, address: str, username: str = "") -> None:
        """Have it written down that somebody was turned away; raises as :meth:`arrive`."""
        body = Verified(provider, "", username).body("", address)
        await self._asked("POST", "/arrivals", {**body, "refused": reason})

    async def standing(self, name: str) -> Standing:
        """How a user stands now; raises :class:`ProviderDownError`."""
        return await self._asked("GET", f"/users/{quote(name, safe='')}/standing")

    async def announcements(self) -> list[str]:
        """What is to be told to everybody now; raises :class:`ProviderDownError`."""
        answer = await self._send("GET", "/announcements/public", None)
        try:
            found = answer.json()
            return [str(one["text"]) for one in found] if answer.status_code == httpx.codes.OK else []
        except (ValueError, TypeError, KeyError):
            return []

    async def _patiently(self, method: str, path: str, body: dict[str, Any]) -> Standing:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return await self._asked(method, path, body)
            except ProviderDownError:
                if time.monotonic() + 0.5 > deadline:
                    raise
                await asyncio.sleep(0.5)

    async def _asked(self, method: str, path: str, body: dict[str, Any] | None = None) -> Standing:
        answer = await self._send(method, path, body)
        try:
            if answer.status_code == httpx.codes.OK:
                return Standing.model_validate_json(answer.content)
        except ValidationError:
            pass
        raise ProviderDownError("The service", f"{method} {path}: status {answer.status_code}")

    async def _send(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
        try:
            token = self._token_file.read_text().strip()
            headers = {"Authorization": f"Bearer {token}"}
            # Straight to this host, whatever proxy the operator's shell has.
            async with httpx.AsyncClient(timeout=5.0, trust_env=False, verify=trusted(None)) as http:
                return await http.request(method, f"{self._api}{path}", json=body, headers=headers)
        except (OSError, httpx.HTTPError) as error:
            said = f"{method} {path}: {type(error).__name__}"
            raise ProviderDownError("The service", said) from error
