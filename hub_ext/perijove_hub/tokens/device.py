"""Logins of devices that have no browser of their own (RFC 8628): who waits, and what was decided.

Held in memory: a login lives for minutes, and one that a restart has forgotten is begun again.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from perijove.model import ForbiddenError, Scope, UnavailableError
from perijove_hub.tokens.secret import digest

ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
"""Of user codes: no vowels, so no words; nothing that looks like something else (RFC 8628, 6.1)."""
LENGTH = 8
"""Letters of a user code: 20^8 of them, of which a few hundred lead anywhere at a time."""
LIFE = 600.0
"""Seconds that a device waits."""
INTERVAL = 2.0
"""Seconds between two questions of a device; each that comes too early makes it longer by as much."""
WAITING, FROM_ONE_ADDRESS = 2000, 100
"""Devices that may wait at once."""
GUESSES, WINDOW = 5, 600.0
"""Codes that one user may get wrong, within so many seconds."""
GRANT = "urn:ietf:params:oauth:grant-type:device_code"


class DeviceRefusal(Exception):  # noqa: N818 - an answer of the protocol, and not always an error
    """What a device is told in place of a token: an error code of RFC 8628, section 3.5, or RFC 6749, 5.2."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code = code


@dataclass(slots=True)
class DeviceLogin:
    """A device that waits for somebody to say that it is theirs."""

    user_code: str
    name: str
    """What the device says it is called."""
    address: str
    scope: Scope
    expires: float
    interval: float = INTERVAL
    asked: float = 0.0
    owner: str | None = None
    """Who said yes."""
    denied: bool = False

    @property
    def code(self) -> str:
        """The user code as people read it."""
        return f"{self.user_code[:4]}-{self.user_code[4:]}"

    @property
    def decided(self) -> bool:
        """Whether somebody said yes or no; nobody can say it again."""
        return self.denied or self.owner is not None


@dataclass
class DeviceLogins:
    """The devices that wait."""

    clock: Callable[[], float] = time.time
    _by_device: dict[str, DeviceLogin] = field(default_factory=dict)
    _by_user: dict[str, DeviceLogin] = field(default_factory=dict)
    _wrong: dict[str, deque[float]] = field(default_factory=dict)

    def begin(self, name: str, scope: Scope, address: str) -> tuple[str, DeviceLogin]:
        """A device asks to be let in: the code that it keeps to itself, and its login.

        Raises :class:`UnavailableError` when too many wait already.
        """
        self._forget_expired()
        here = Counter(one.address for one in self._by_device.values())
        if len(self._by_device) >= WAITING or here[address] >= FROM_ONE_ADDRESS:
            raise UnavailableError("too many devices wait to be logged in; try again in ten minutes")
        user_code = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
        while user_code in self._by_user:
            user_code = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
        device_code = secrets.token_urlsafe(32)
        login = DeviceLogin(user_code, name, address, scope, self.clock() + LIFE)
        self._by_device[digest(device_code)] = self._by_user[user_code] = login
        return device_code, login

    def seek(self, code: str, user: str) -> DeviceLogin | None:
        """The login that `user` was told the code of; None when it leads nowhere, or was decided.

        Raises :class:`ForbiddenError` for who has guessed too often.
        """
        now, wrong = self.clock(), self._wrong.setdefault(user, deque(maxlen=GUESSES))
        if len(wrong) == GUESSES and now - wrong[0] < WINDOW:
            raise ForbiddenError("too many codes that lead nowhere; wait ten minutes")
        found = self._by_user.get(normal(code))
        if found is None or found.decided or found.expires <= now:
            wrong.append(now)
            return None
        return found

    def decide(self, login: DeviceLogin, owner: str | None) -> None:
        """Somebody says that the device is theirs, or with None that it is not. Once."""
        if login.decided:
            raise ForbiddenError("this was decided already")
        login.owner, login.denied = owner, owner is None

    def poll(self, device_code: str) -> DeviceLogin:
        """The login of a device that was let in; from now on its codes are of no use.

        Raises :class:`DeviceRefusal` for any other.
        """
        key, now = digest(device_code), self.clock()
        login = self._by_device.get(key)
        if login is None:
            raise DeviceRefusal("invalid_grant", "this code is none, or was used; begin again")
        if login.expires <= now:
            self._remove(key)
            raise DeviceRefusal("expired_token", "nobody let the device in within ten minutes; begin again")
        if login.denied:
            self._remove(key)
            raise DeviceRefusal("access_denied", "whoever was asked said that the device is not theirs")
        if login.owner is not None:
            self._remove(key)
            return login
        early, login.asked = now - login.asked < login.interval, now
        if early:
            login.interval += INTERVAL
            raise DeviceRefusal("slow_down", f"ask every {login.interval:g} s")
        raise DeviceRefusal("authorization_pending", "nobody has let the device in yet")

    def restore(self, device_code: str, login: DeviceLogin) -> None:
        """Let a login wait again whose token could not be made."""
        self._by_device[digest(device_code)] = self._by_user[login.user_code] = login

    def sign_out(self, owner: str) -> None:
        """Let no device in any more that `owner` said yes to."""
        for key, login in list(self._by_device.items()):
            if login.owner == owner:
                self._remove(key)

    def _remove(self, key: str) -> None:
        del self._by_user[self._by_device.pop(key).user_code]

    def _forget_expired(self) -> None:
        now = self.clock()
        # Each is kept for a while, so that its device hears why.
        for key in [key for key, one in self._by_device.items() if one.expires + LIFE < now]:
            self._remove(key)
        for user in [user for user, wrong in self._wrong.items() if not wrong or now - wrong[-1] > WINDOW]:
            del self._wrong[user]


def normal(code: str) -> str:
    """A user code as people type it, without what they add."""
    return "".join(letter for letter in code.upper()[:40] if letter in ALPHABET)
