"""What newcomers are called: as system accounts may be, and never as anybody else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from perijove.model import ConflictError
from perijove_hub.users.configuration import SYSTEM_NAME, UidRange
from perijove_hub.users.uids import number_named

LONGEST = 32
"""Characters of a system account's name (useradd(8))."""
MANY = 10_000
"""People of one name."""
RESERVED = frozenset(
    {"admin", "administrator", "guest", "hub", "me", "nobody", "perijove", "project", "root", "service"}
    | {"services", "site", "standing", "system", "trial", "user", "users", "waiting"}
)
"""Names that mean something else here, or would be taken for it."""


def normalised(*wishes: str) -> str:
    """The first of `wishes` of which something is left, as a system account may be called; else ``someone``.

    An address stands for what comes before its ``@``.
    """
    for wish in wishes:
        plain = unicodedata.normalize("NFKD", wish.partition("@")[0]).encode("ascii", "ignore").decode()
        name = re.sub(r"[^a-z0-9_]+", "-", plain.lower()).strip("-")
        name = re.sub(r"^([0-9-]|perijove-)+", "", name)[: LONGEST - 4].rstrip("-")
        if name:
            return name
    return "someone"


def is_reserved(name: str, uids: UidRange) -> bool:
    """Whether `name` is for nobody to have: another meaning, or that of a number."""
    made = name.startswith("perijove-") or number_named(name, uids) is not None
    return name in RESERVED or made


def is_name(name: str) -> bool:
    """Whether a system account could be called so."""
    return re.fullmatch(SYSTEM_NAME, name) is not None


def free_name(base: str, taken: Callable[[str], bool]) -> str:
    """`base`, or with the lowest number behind it that makes it free: ``alice-2``.

    Raises :class:`ConflictError` when there are too many.
    """
    if not taken(base):
        return base
    for number in range(2, MANY):
        if not taken(name := f"{base[: LONGEST - 8]}-{number}"):
            return name
    raise ConflictError(f"there are too many called {base}")
