"""Local accounts by PAM, and one trial account with a generated password."""

from __future__ import annotations

import asyncio
import hmac
import pwd
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyterhub.auth import Authenticator, PAMAuthenticator
from traitlets import Unicode

from perijove_hub.accounts import FIRST_UID

REMEMBERED_NAMES = 10_000


class Throttle:
    """Slows down guessing: after each failure for a name its next attempt must wait longer.

    The wait doubles from `first` to `longest` seconds. Failures are forgotten some time after the last.
    """

    def __init__(
        self, first: float = 0.5, longest: float = 15.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._first, self._longest, self._clock = first, longest, clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait(self, name: str) -> float:
        """Seconds until the next attempt for `name` is listened to."""
        count, last = self._failures.get(name, (0, 0.0))
        if not count:
            return 0.0
        penalty = min(self._longest, self._first * 2.0 ** min(count - 1, 32))
        return max(0.0, last + penalty - self._clock())

    def failed(self, name: str) -> None:
        """Note a failure."""
        count, last = self._failures.pop(name, (0, 0.0))
        now = self._clock()
        self._failures[name] = (count + 1 if now - last <= 2 * self._longest else 1, now)
        while len(self._failures) > REMEMBERED_NAMES:
            self._failures.popitem(last=False)

    def succeeded(self, name: str) -> None:
        """Forget what was noted."""
        self._failures.pop(name, None)


class LocalAuthenticator(PAMAuthenticator):  # type: ignore[misc]
    """The machine's own accounts; system accounts (root among them) may not log in."""

    trial_user = Unicode(config=True, help="Name of the trial account; none when empty.")
    password_file = Unicode(config=True, help="File with the trial account's password; read at each login.")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.throttle = Throttle()
        self.refusal_takes = 1.0
        """Seconds to refuse a name that PAM is not asked about: as long as it takes for those it is."""

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        """The name when the password is right, else None; see JupyterHub's ``Authenticator.authenticate``."""
        name: str = self.normalize_username(data["username"])
        if wait := self.throttle.wait(name):
            self.log.warning("login of %r refused for %.0f s after failures", name[:32], wait)
            return None
        # Noted beforehand, so that attempts made at the same time count too.
        self.throttle.failed(name)
        if not await self._is_right(handler, name, data):
            return None
        self.throttle.succeeded(name)
        return name

    async def _is_right(self, handler: Any, name: str, data: dict[str, str]) -> bool:
        if name == self.trial_user and self._is_trial_password(data["password"]):
            return True
        if not is_person(name):
            await asyncio.sleep(self.refusal_takes)
            return False
        answer = super().authenticate(handler, {**data, "username": name})
        return await answer is not None

    def _is_trial_password(self, given: str) -> bool:
        try:
            expected = Path(self.password_file).read_text().strip()
        except OSError as error:
            self.log.error("the trial account's password cannot be read: %s", error)
            return False
        return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())

    async def add_user(self, user: Any) -> None:
        """Take `user` into the hub; the trial account has no system entry, and none is made."""
        Authenticator.add_user(self, user)


def is_person(name: str) -> bool:
    """Whether it is a local account of a person, not of the system."""
    try:
        return pwd.getpwnam(name).pw_uid >= FIRST_UID
    except (KeyError, ValueError):
        return False
