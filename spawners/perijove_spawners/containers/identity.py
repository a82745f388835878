"""Account files for containers: without an entry in ``passwd``, ssh, ``whoami`` and Jupyter are lost.

The image's own ``passwd`` and ``group`` with the account put first, mounted over them, read-only. An image's
files are fetched once; the files of an account are written once per image.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import io
import os
import tarfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from perijove.model import Account
from perijove_spawners.launcher import LaunchError, Mount

FILES = ("passwd", "group")
LARGEST = 1 << 20
"""Bytes of an image's account file that are taken; a longer one is taken for none."""

Fetch = Callable[[], Awaitable[Mapping[str, str]]]
"""The image's files by name (:data:`FILES`)."""


class Identities:
    """The account files made so far, under a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def mounts(self, image: str, account: Account, shell: str, fetch: Fetch) -> tuple[Mount, ...]:
        """Mounts that make `account` known in a container of the image with id `image`.

        None for root, which every image knows. :class:`LaunchError` for an account that no line can hold.
        """
        if account.uid == 0:
            return ()
        check(account, shell)
        folder = self._directory / "accounts" / _digest(image, account, shell)
        if not all((folder / name).exists() for name in FILES):
            files = await self._image_files(image, fetch)
            _store(folder / "passwd", passwd(files["passwd"], account, shell))
            _store(folder / "group", group(files["group"], account, group_names(account)))
        return tuple(Mount(str(folder / name), f"/etc/{name}", read_only=True) for name in FILES)

    async def _image_files(self, image: str, fetch: Fetch) -> Mapping[str, str]:
        folder = self._directory / "images" / hashlib.sha256(image.encode()).hexdigest()
        with contextlib.suppress(FileNotFoundError):
            return {name: (folder / name).read_text() for name in FILES}
        files = await fetch()
        for name in FILES:
            _store(folder / name, files.get(name, ""))
        return {name: files.get(name, "") for name in FILES}


def check(account: Account, shell: str) -> None:
    """:class:`LaunchError` when a field would break out of its line."""
    for field, value in (("name", account.name), ("home", account.home), ("shell", shell)):
        if not value.isprintable() or ":" in value:
            raise LaunchError(f"account {account.name!r} cannot be made known: its {field} is {value!r}")


def passwd(image: str, account: Account, shell: str) -> str:
    """The image's ``passwd`` (passwd(5)) with `account` first, in place of one of the same name."""
    line = f"{account.name}:x:{account.uid}:{account.gid}::{account.home}:{shell}"
    rest = [other for other in image.splitlines() if other.split(":")[0] != account.name]
    return "\n".join([line, *rest]) + "\n"


def group(image: str, account: Account, names: Mapping[int, str]) -> str:
    """The image's ``group`` with those of the account's groups that it lacks (group(5))."""
    lines = image.splitlines()
    taken = {line.split(":")[0] for line in lines}
    present = {line.split(":")[2] for line in lines if line.count(":") >= 3}
    added = []
    for gid in dict.fromkeys((account.gid, *account.groups)):
        if str(gid) not in present:
            name = names.get(gid, "")
            added.append(f"{name if name and name not in taken else f'g{gid}'}:x:{gid}:")
    return "\n".join([*added, *lines]) + "\n"


def group_names(account: Account) -> dict[int, str]:
    """The names that this host has for the account's groups."""
    names = {account.gid: account.name}
    for gid in (account.gid, *account.groups):
        with contextlib.suppress(KeyError):
            names[gid] = grp.getgrgid(gid).gr_name
    return names


def from_archive(archive: bytes) -> str:
    """The one file in an archive of the engine; empty for anything but a text of sensible size."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = tar.next()
        if member is None or not member.isreg() or member.size > LARGEST:
            return ""
        file = tar.extractfile(member)
        return file.read().decode(errors="replace") if file else ""


def _digest(image: str, account: Account, shell: str) -> str:
    return hashlib.sha256(repr((image, account, shell)).encode()).hexdigest()


def _store(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{id(text)}")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.replace(path)
