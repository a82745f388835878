"""What goes wrong with a store, and who can mend it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from perijove.model import OperatorError


class CorruptError(OperatorError):
    """The store's content does not match its digest."""


class FullError(OperatorError):
    """The store is full: nothing can be added until something was removed."""

    status = 507


FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def folder_errors(where: str) -> Iterator[None]:
    """A full disk is :class:`FullError`; other errors of the system stay what they are."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise FullError(f"the store {where} is full ({error.strerror})") from error
        raise
