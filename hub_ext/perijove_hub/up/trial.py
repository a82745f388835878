"""The trial account: whoever runs `up` can log in at once, without setting up PAM, LDAP or OAuth.

For an ordinary user it is that user. Root runs nobody's notebook; then it is ``tour``, an account that
exists in Perijove only, with a uid of its own and a home under the state directory.
"""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass, field
from pathlib import Path

from perijove_hub.private_files import kept_secret

NAME = "tour"
FIRST_UID = 20_000
PASSWORD_BYTES = 9


@dataclass(frozen=True, slots=True)
class TrialAccount:
    """Its name, password, and for an account without a system entry also its uid, which is its gid too."""

    name: str
    password: str = field(repr=False)
    uid: int | None = None


def trial_account(state: Path) -> TrialAccount:
    """The account, with the password kept in ``DIR/password`` (mode 0600)."""
    password = kept_secret(state / "password", PASSWORD_BYTES)
    if os.geteuid() != 0:
        return TrialAccount(pwd.getpwuid(os.geteuid()).pw_name, password)
    try:
        pwd.getpwnam(NAME)
    except KeyError:
        return TrialAccount(NAME, password, _uid(state / "homes" / NAME))
    return TrialAccount(NAME, password)


def _uid(home: Path) -> int:
    """The owner of the home when there is one already, else the first uid nobody has."""
    try:
        if (owner := home.lstat().st_uid) >= FIRST_UID:
            return owner
    except FileNotFoundError:
        pass
    taken = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    return next(uid for uid in range(FIRST_UID, FIRST_UID + len(taken) + 1) if uid not in taken)
