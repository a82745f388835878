"""Users without a system account: number <-> name <-> uid, one to one (pCluster's ``owner``)."""

from __future__ import annotations

from collections.abc import Callable, Collection

from perijove.model import ConflictError, FieldError, InvalidSpecError
from perijove_hub.users.configuration import UidRange


def uid_of(number: int, uids: UidRange) -> int:
    """The uid, and gid, of a number. :class:`InvalidSpecError` outside the range."""
    most = uids.last - uids.first
    if not 1 <= number <= most:
        raise InvalidSpecError(errors=[FieldError("number", str(number), f"must be from 1 to {most}")])
    return uids.first + number


def number_of(uid: int, uids: UidRange) -> int:
    """The number of a uid. :class:`InvalidSpecError` outside the range."""
    if not uids.first < uid <= uids.last:
        text = f"must be from {uids.first + 1} to {uids.last}"
        raise InvalidSpecError(errors=[FieldError("uid", str(uid), text)])
    return uid - uids.first


def name_of(number: int, uids: UidRange) -> str:
    """What the account of a number is called in its jobs: ``user20042``. Raises as :func:`uid_of`."""
    return f"{uids.prefix}{uid_of(number, uids)}"


def number_named(name: str, uids: UidRange) -> int | None:
    """The number that an account of that name has; None for names that the rule does not make."""
    digits = name.removeprefix(uids.prefix)
    if digits == name or not digits.isascii() or not digits.isdigit() or digits.startswith("0"):
        return None
    uid = int(digits[:12])
    return uid - uids.first if uids.first < uid <= uids.last and digits == str(uid) else None


def free_number(used: Collection[int], uids: UidRange, taken: Callable[[int], bool]) -> int:
    """The lowest number that was never given and whose uid nothing else has.

    `taken` tells whether a uid belongs to the system. Raises :class:`ConflictError` when all are used up.
    """
    for number in range(1, uids.last - uids.first + 1):
        if number not in used and not taken(uids.first + number):
            return number
    text = f"all uids from {uids.first + 1} to {uids.last} have been given; widen the range of `uids`"
    raise ConflictError(text)
