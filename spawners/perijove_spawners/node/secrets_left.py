"""What becomes of secrets of attempts that are over: also of those whose agent was killed on the way."""

from __future__ import annotations

from collections.abc import Collection

from perijove.model import Attempt
from perijove_spawners.node.attempts import Attempts, Folder
from perijove_spawners.node.secrets import SecretFolders


def clear(secrets: SecretFolders, attempts: Attempts, living: Collection[Attempt]) -> None:
    """Remove what an agent that was killed could not; `living` are those that have not ended."""
    for attempt in secrets.held:
        if not attempts.exists(attempt):
            secrets.drop(attempt)
        elif attempt not in living:
            secrets.end(attempt)


def finish(secrets: SecretFolders, folder: Folder) -> None:
    """The log of an ended attempt is complete: mask it, and keep nothing of its secrets."""
    if folder.attempt in secrets.held:
        taken = folder.read().taken
        secrets.finish(folder.path, taken.order.account if taken else None, folder.attempt)


def finish_forgotten(
    secrets: SecretFolders, attempts: Attempts, launcher: str, there: Collection[Attempt]
) -> None:
    """The same for all attempts of a launcher that has nothing of them any more: only `there` it has."""
    for attempt in set(secrets.held).difference(there):
        folder = attempts.folder(attempt)
        if folder.forgotten and (taken := folder.read().taken) and taken.order.launcher == launcher:
            finish(secrets, folder)
