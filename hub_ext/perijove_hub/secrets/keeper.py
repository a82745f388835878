"""The secrets of a site: which there are is held in memory; values are decrypted when an order needs them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from perijove.model import ConflictError, NotFoundError, SecretName, SecretPlace, UserError
from perijove_hub.secrets.keys import KeyRing, UnreadableError
from perijove_hub.store import secrets as rows
from perijove_hub.store.database import Database
from perijove_hub.store.secrets import Place, Sealed
from perijove_spawners.launcher import RegistryLogin
from perijove_spawners.protocol import Secret

log = logging.getLogger(__name__)

LARGEST = 64 << 10
"""Bytes of a secret."""
MOST = 1000
"""Secrets of one user, or one project."""

Purpose = Literal["job", "registry"]


class Secrets:
    """See the module. What blocks says so; all may be called from any thread."""

    def __init__(self, database: Database, key_file: Path) -> None:
        self._database, self._keys = database, KeyRing(key_file)
        self._rows: dict[Place, Sealed] = {}
        self._lock = threading.Lock()

    def open(self) -> None:
        """Read all there are, and encrypt anew what an older key did; blocks."""
        with self._lock:
            self._keys.read()
            self._rows = self._database.read(rows.all_of_them)
            self._renew()

    def rotate(self) -> int:
        """Make a new key and encrypt all with it; how many were. Older keys stay in the file. Blocks."""
        with self._lock:
            self._keys.add()
            return self._renew()

    def _renew(self) -> int:
        renewed, lost = {}, 0
        for place, row in self._rows.items():
            if self._keys.is_current(row.sealed):
                continue
            try:
                value = self._keys.open(place, row.sealed)
            except UnreadableError:
                lost += 1
            else:
                renewed[place] = row._replace(sealed=self._keys.seal(place, value))
        if lost:
            log.critical("%d secrets cannot be read with the keys of this service (secret_key_file)", lost)
        if renewed:
            self._database.write(partial(rows.put, rows=renewed))
            self._rows.update(renewed)
        return len(renewed)

    # ---- what users do

    def put(self, holder: str, purpose: Purpose, name: str, value: bytes, by: str, at: float) -> SecretName:
        """Set a secret, durably; blocks. :class:`ConflictError` when the holder has too many."""
        place = Place(holder, purpose, name)
        with self._lock:
            if place not in self._rows and sum(one.holder == holder for one in self._rows) >= MOST:
                raise ConflictError(f"there are {MOST} secrets already; remove one first")
            row = Sealed(self._keys.seal(place, value), by, at)
            self._database.write(partial(rows.put, rows={place: row}))
            self._rows[place] = row
        return _told(place, row)

    def remove(self, holder: str, purpose: Purpose, name: str) -> None:
        """Remove a secret, durably; blocks. :class:`NotFoundError` when there is none."""
        place = Place(holder, purpose, name)
        with self._lock:
            if place not in self._rows:
                what = "login at the registry" if purpose == "registry" else "secret"
                raise NotFoundError(f"there is no {what} {name}")
            self._database.write(partial(rows.remove, place=place))
            del self._rows[place]

    def names(self, holder: str, purpose: Purpose = "job") -> list[SecretName]:
        """Those of a holder, by name."""
        found = [(p, row) for p, row in self._rows.copy().items() if p[:2] == (holder, purpose)]
        return [_told(place, row) for place, row in sorted(found)]

    # ---- what jobs get

    def held(self, owner: str, project: str | None) -> Collection[str]:
        """Names of the secrets that jobs of `owner` in `project` may have."""
        holders = _holders(owner, project)
        return {p.name for p in self._rows.copy() if p.purpose == "job" and p.holder in holders}

    def of_job(
        self, owner: str, project: str | None, wanted: Mapping[str, SecretPlace]
    ) -> tuple[Secret, ...]:
        """The secrets of a job: the owner's own, else the project's.

        :class:`UserError` says which cannot be had, and why.
        """
        return tuple(self._one(owner, project, name, place) for name, place in wanted.items())

    def _one(self, owner: str, project: str | None, name: str, place: SecretPlace) -> Secret:
        value = self._value(owner, project, "job", name)
        if value is None:
            raise UserError(f"there is no secret {name} any more")
        if place.place == "file":
            return Secret(name, value)
        if b"\0" in value:
            raise UserError(f"secret {name} holds a NUL byte and cannot be a variable; take it as a file")
        return Secret(name, value, place.variable or name)

    def login(self, owner: str, project: str | None, registry: str) -> RegistryLogin | None:
        """The owner's own login at a registry, else the project's."""
        value = self._value(owner, project, "registry", registry)
        return None if value is None else login_of(value)

    def _value(self, owner: str, project: str | None, purpose: Purpose, name: str) -> bytes | None:
        for holder in _holders(owner, project):
            place = Place(holder, purpose, name)
            if (row := self._rows.get(place)) is not None:
                try:
                    return self._keys.open(place, row.sealed)
                except UnreadableError as error:
                    raise UserError(f"secret {name} cannot be read: {error}") from error
        return None


def login_text(username: str, password: str) -> bytes:
    """A login at a registry as the value of a secret."""
    return json.dumps({"username": username, "password": password}).encode()


def login_of(value: bytes) -> RegistryLogin:
    """The inverse of :func:`login_text`."""
    return RegistryLogin(**json.loads(value))


def _holders(owner: str, project: str | None) -> tuple[str, ...]:
    return (f"user:{owner}", *([f"project:{project}"] if project else []))


def _told(place: Place, row: Sealed) -> SecretName:
    kind, _, who = place.holder.partition(":")
    return SecretName(
        name=place.name,
        project=who if kind == "project" else None,
        purpose="registry" if place.purpose == "registry" else "job",
        by=row.by,
        changed=row.at,
    )
