"""Ports of this host for ports of containers: from one range, each given once, kept while its job lives.

Which an attempt has stands in the file ``ports`` of its folder, written before the engine is asked.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socket
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from perijove.model import Attempt, Endpoint, OperatorError
from perijove_spawners.launcher import LaunchError

_FILE = "ports"
_ANYWHERE = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 -- what an engine says, not what is bound


class NoPortError(LaunchError):
    """All ports of the range are given out; later one may be free."""

    transient = True


@dataclass(slots=True)
class Publishing:
    """The range of one node; without one nothing is published."""

    ports: range = range(0)
    addresses: tuple[str, ...] = ("0.0.0.0",)  # noqa: S104 -- the operator's choice
    """Of this host, on which the ports are bound."""
    _held: dict[int, Attempt] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def parse(cls, ports: str, addresses: str) -> Publishing:
        """From the node's options ``30000-30999`` and ``10.0.0.5,::1``; :class:`OperatorError`."""
        if not ports:
            return cls()
        first, _, last = ports.partition("-")
        numbers = [int(text) if text.isascii() and text.isdecimal() else 0 for text in (first, last or first)]
        if not 1024 <= numbers[0] <= numbers[1] <= 65535:
            raise OperatorError(
                f"--publish-ports {ports}: must be FIRST-LAST, from 1024 to 65535, as 30000-30999"
            )
        found = tuple(word.strip() for word in addresses.split(",") if word.strip())
        for address in found:
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise OperatorError(
                    f"--publish-address {address}: must be an address of this host, as 10.0.0.5"
                ) from None
        return cls(range(numbers[0], numbers[1] + 1), found or ("0.0.0.0",))  # noqa: S104

    def take_up(self, folders: Mapping[Attempt, Path]) -> None:
        """What attempts that live were given by an earlier agent."""
        for attempt, folder in folders.items():
            for number in _read(folder).values():
                self._held[number] = attempt

    def provide(self, attempt: Attempt, folder: Path, wanted: Collection[int]) -> dict[int, int]:
        """A port of this host for each of the job's; the same again for the same attempt.

        Nothing without a range. :class:`NoPortError` when there are too few.
        """
        if not self.ports or not wanted:
            return {}
        with self._lock:
            known = _read(folder)
            if known.keys() == set(wanted):
                self._held.update(dict.fromkeys(known.values(), attempt))
                return known
            given = self._choose(attempt, list(dict.fromkeys(wanted)))
            try:
                _write(folder, given)
            except OSError as error:
                raise NoPortError(f"the job's ports cannot be noted: {error.strerror}") from error
            self._held.update(dict.fromkeys(given.values(), attempt))
            return given

    def _choose(self, attempt: Attempt, wanted: list[int]) -> dict[int, int]:
        given: dict[int, int] = {}
        # Not from the start each time: what was just given back may still be known to somebody.
        begin = attempt.job * 7919 % len(self.ports)
        for number in (*self.ports[begin:], *self.ports[:begin]):
            if len(given) == len(wanted):
                break
            if self._held.get(number, attempt) == attempt and self._bindable(number):
                given[wanted[len(given)]] = number
        if len(given) < len(wanted):
            first, last = self.ports[0], self.ports[-1]
            raise NoPortError(f"of this node's ports {first} to {last} fewer than {len(wanted)} are free")
        return given

    def _bindable(self, number: int) -> bool:
        """Nobody else on this host has it."""
        for address in self.addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    trial.bind((address, number))
                except OSError:
                    return False
        return True

    def release(self, attempt: Attempt) -> None:
        """Its ports are free again."""
        with self._lock:
            for number in [number for number, holder in self._held.items() if holder == attempt]:
                del self._held[number]

    def seen_from_elsewhere(self, endpoint: Endpoint, host: str) -> Endpoint:
        """`endpoint` with the node's own address `host` where it says that it is any."""
        ports = {}
        for port, place in endpoint.ports.items():
            address, _, number = place.rpartition(":")
            ports[port] = f"{host}:{number}" if address.strip("[]") in _ANYWHERE else place
        return Endpoint(ports=ports)


def _read(folder: Path) -> dict[int, int]:
    try:
        found = json.loads((folder / _FILE).read_text())
        return {int(port): int(number) for port, number in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _write(folder: Path, given: Mapping[int, int]) -> None:
    fresh = folder / f".{_FILE}.new"
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({str(port): number for port, number in given.items()}, file)
    fresh.rename(folder / _FILE)
