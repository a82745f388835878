"""A lost laptop: all that a user once was let in with is of no use any more, here and at the hub."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from perijove.model import UnavailableError
from perijove_hub.identity import Caller
from perijove_hub.tokens.book import Tokens
from perijove_hub.tokens.device import DeviceLogins
from perijove_hub.tokens.hub import Hub, HubRefusalError
from perijove_hub.users.person import Person

log = logging.getLogger(__name__)
AWAITED = 30.0
"""Seconds that a sign-out waits for the hub; it goes on after them."""
BEHIND = "session hub "
"""How a session is labelled, before the number of its token at the hub."""
LATELY = 7 * 86400.0
"""Seconds back to which sign-outs are gone over by a service that begins."""
PAUSE = 5.0
"""Seconds between two tries while the hub does not answer."""


class Revocation:
    """Signs users out. `hub`: None where there is none; `forget` drops what is known of its tokens."""

    def __init__(
        self,
        tokens: Tokens,
        devices: DeviceLogins,
        hub: Hub | None,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self._tokens, self._devices, self._hub, self._forget = tokens, devices, hub, forget
        self._going: dict[str, asyncio.Task[None]] = {}

    async def sign_out(self, name: str, before: float | None = None) -> None:
        """End what `name` was let in with before a moment, or until now: tokens of Perijove's and of the
        hub's, devices that wait, servers started before. May be repeated.

        Raises :class:`UnavailableError` when the database does not write. While the hub does not answer it is
        asked again in the background; what this service itself lets in does not depend on it.
        """
        before = time.time() if before is None else before
        self._devices.sign_out(name)
        await self._tokens.revoke_all(name, before)
        self._forget()
        if self._hub is None:
            return
        if (earlier := self._going.pop(name, None)) is not None:
            earlier.cancel()
        task = self._going[name] = asyncio.create_task(self._patiently(self._hub, name, before))
        task.add_done_callback(lambda done: self._going.pop(name) if self._going.get(name) is done else None)
        await asyncio.wait({task}, timeout=AWAITED)

    async def end_session(self, caller: Caller) -> None:
        """End the hub's token behind a browser's session; while the hub is away it lives until it expires."""
        if self._hub is not None and caller.token.startswith(BEHIND):
            with suppress(UnavailableError, HubRefusalError):
                await self._hub.delete_token(caller.name, caller.token.removeprefix(BEHIND))
            self._forget()

    async def resume(self, people: Mapping[str, Person]) -> None:
        """Sign out again who was signed out lately: a service may have died over it."""
        lately = time.time() - LATELY
        for name, person in people.items():
            if self._hub is not None and person.user.valid_from > lately:
                self._going[name] = asyncio.create_task(
                    self._patiently(self._hub, name, person.user.valid_from)
                )

    async def close(self) -> None:
        """Stop asking the hub."""
        going, self._going = list(self._going.values()), {}
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)

    async def _patiently(self, hub: Hub, name: str, before: float) -> None:
        while True:
            try:
                await _at_the_hub(hub, name, before)
                return
            except UnavailableError as error:
                log.warning("signing %s out at the hub: %s; trying again", name, error)
            except HubRefusalError as error:
                log.error("signing %s out at the hub: the service's role lacks a scope: %s", name, error)
                return
            finally:
                self._forget()
            await asyncio.sleep(PAUSE)


async def _at_the_hub(hub: Hub, name: str, before: float) -> None:
    """Tokens first: a server that goes on for a moment then has nothing to ask with."""
    hub.forget(name)
    for token in await hub.tokens(name):
        if token.created < before:
            await hub.delete_token(name, token.id)
    user = await hub.user(name)
    for server, started in (user.servers if user is not None else {}).items():
        if started < before:
            await hub.stop_server(name, server)
