"""Secrets of the attempts of a node, in memory: they lie in a tmpfs (tmpfs(5)) and never on a disk.

``BASE/12.1/NAME`` are the files of a job: mode 0400, its account's, in a folder that only it enters. What the
agent itself needs of them, to hide them in logs and to fetch the image, lies in ``BASE/.12.1``, its own.
`BASE` has a name that nobody can guess before it is there, kept in the agent's directory.

The job's files go when the attempt ends. The agent's copies stay until its log is complete and was masked.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from perijove.model import Account, Attempt
from perijove_spawners.launcher import JOB_SECRETS, Launch, LaunchError, Mount, RegistryLogin
from perijove_spawners.node.masking import Mask
from perijove_spawners.node.staging import files_account
from perijove_spawners.protocol import Order

log = logging.getLogger(__name__)

_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_LOGIN, _NEW = ".login", ".new-"
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


_NOTHING = Mask()


class SecretsLostError(LaunchError):
    """They were in memory, and are not any more."""

    transient = True


def without_secrets(order: Order) -> Order:
    """`order` with the names of its secrets only: what may be written down."""
    return replace(order, secrets=tuple(replace(one, value=b"") for one in order.secrets), registry=None)


class SecretFolders:
    """Secrets of all attempts of one agent; `directory` is the agent's own."""

    def __init__(self, directory: Path) -> None:
        self._note = directory / "secrets-folder"
        self._base: Path | None = None
        self._held: set[Attempt] = set()
        self._masks: dict[Attempt, Mask] = {}

    def open(self) -> None:
        """Find what an earlier agent left."""
        with contextlib.suppress(OSError):
            base = Path(self._note.read_text().strip())
            if _is_ours(base):
                self._base = base
                for path in base.iterdir():
                    with contextlib.suppress(ValueError):
                        self._held.add(Attempt.parse(path.name.removeprefix(_NEW).removeprefix(".")))

    def close(self) -> None:
        """Leave no empty folder; what is held stays for the next agent."""
        if self._base is not None and not self._held:
            with contextlib.suppress(OSError):
                self._base.rmdir()

    @property
    def held(self) -> list[Attempt]:
        """Attempts of which something is here."""
        return sorted(self._held)

    def keep(self, order: Order) -> Order:
        """Put the secrets of `order` where they are needed, and give it without. :class:`LaunchError`."""
        if not order.secrets and order.registry is None:
            return order
        attempt = order.attempt
        self.drop(attempt)
        self._held.add(attempt)
        try:
            self._write(self._made(), order)
        except OSError as error:
            self.drop(attempt)
            raise LaunchError(f"its secrets cannot be kept in memory here: {error.strerror}") from error
        return without_secrets(order)

    def _write(self, base: Path, order: Order) -> None:
        own = base / f".{order.attempt}"
        own.mkdir(mode=0o700)
        values = {one.name: one.value for one in order.secrets}
        for name, value in values.items():
            _put(own / name, value, 0o600)
        if login := order.registry:
            _put(own / _LOGIN, json.dumps([login.username, login.password]).encode(), 0o600)
        if values:
            account = files_account(order)
            fresh = base / f"{_NEW}{order.attempt}"
            fresh.mkdir(mode=0o700)
            for name, value in values.items():
                _put(fresh / name, value, 0o400)
            fresh.chmod(0o500)
            if os.geteuid() == 0:
                for path in [*(fresh / name for name in values), fresh]:
                    os.chown(path, account.uid, account.gid, follow_symlinks=False)
            fresh.rename(base / str(order.attempt))

    def path(self, attempt: Attempt) -> str:
        """The folder of the job's files."""
        return f"{self._base or '/nonexistent'}/{attempt}"

    def check(self, order: Order) -> None:
        """:class:`SecretsLostError` unless all secrets of `order` are there."""
        for one in order.secrets:
            if not Path(self.path(order.attempt), one.name).exists():
                raise SecretsLostError(f"secret {one.name} was lost on this node before the job started")

    def given(self, launch: Launch, order: Order, *, containers: bool) -> Launch:
        """`launch` with the secrets of its order. :class:`SecretsLostError` unless all are there."""
        launch = replace(launch, login=self.login(order.attempt), pull=order.pull)
        if not order.secrets:
            return launch
        self.check(order)
        folder = self.path(order.attempt)
        seen_at = JOB_SECRETS if containers else folder
        mount = Mount(folder, JOB_SECRETS, read_only=True)
        return replace(
            launch,
            mounts=(*launch.mounts, mount) if containers else launch.mounts,
            env={**launch.env, "PERIJOVE_SECRETS": seen_at},
            secrets={one.variable: f"{seen_at}/{one.name}" for one in order.secrets if one.variable},
        )

    def login(self, attempt: Attempt) -> RegistryLogin | None:
        """With whom the image's registry is asked."""
        if attempt not in self._held or self._base is None:
            return None
        with contextlib.suppress(FileNotFoundError):
            return RegistryLogin(*json.loads((self._base / f".{attempt}" / _LOGIN).read_bytes()))
        return None

    def mask(self, attempt: Attempt) -> Mask:
        """What hides the attempt's secrets; one that hides nothing when it has none, or they are gone."""
        if attempt not in self._held or self._base is None:
            return _NOTHING
        if (known := self._masks.get(attempt)) is None:
            values = []
            with contextlib.suppress(FileNotFoundError):
                own = self._base / f".{attempt}"
                values = [path.read_bytes() for path in own.iterdir() if path.name != _LOGIN]
            known = self._masks[attempt] = Mask(values)
        return known

    def end(self, attempt: Attempt) -> None:
        """The attempt has ended: remove what the job saw of them."""
        if attempt in self._held and self._base is not None:
            _remove(self._base / str(attempt))

    def drop(self, attempt: Attempt) -> None:
        """Remove all that is left of them."""
        if attempt in self._held and self._base is not None:
            for name in (str(attempt), f"{_NEW}{attempt}", f".{attempt}"):
                _remove(self._base / name)
        self._masks.pop(attempt, None)
        self._held.discard(attempt)

    def finish(self, folder: Path, account: Account | None, attempt: Attempt) -> None:
        """The log of an ended attempt is complete: mask it where it lies, and keep nothing more of them."""
        if attempt in self._held:
            if account is not None:
                hide_in_files(folder, account, self.mask(attempt))
            self.drop(attempt)

    def _made(self) -> Path:
        """The folder of all; made when first needed. ``OSError`` when there is no place for it."""
        if self._base is not None and _is_ours(self._base):
            return self._base
        base = place_in_memory() / f"perijove-{secrets.token_hex(12)}"
        base.mkdir(mode=0o711)
        # Whatever the umask was: jobs pass through to their own.
        base.chmod(0o711)
        fresh = self._note.with_suffix(".new")
        fresh.write_text(f"{base}\n")
        fresh.replace(self._note)
        self._base = base
        return base


def place_in_memory(mounts: str | None = None) -> Path:
    """A directory of a file system in memory where this process may make one; ``OSError`` without any.

    ``/run`` and the user's own runtime directory come before ``/dev/shm``, which logind clears of what
    belongs to users who leave (logind.conf(5), ``RemoveIPC``). `mounts` is proc_pid_mounts(5)'s.
    """
    table = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    kinds = {words[1]: words[2] for line in table.splitlines() if len(words := line.split()) > 2}
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    for name in ("/run", own, "/dev/shm"):  # noqa: S108 -- a folder in it is made with a name of its own
        if name and os.access(name, os.W_OK) and _kind(Path(name), kinds) in _IN_MEMORY:
            return Path(name)
    raise OSError(0, "there is no file system in memory (tmpfs) at /run or /dev/shm")


def _kind(path: Path, kinds: Mapping[str, str]) -> str:
    """The type of the file system that `path` is on."""
    return next((kinds[str(one)] for one in (path, *path.parents) if str(one) in kinds), "")


def _is_ours(base: Path) -> bool:
    try:
        info = base.lstat()
    except OSError:
        return False
    return base.is_dir() and not base.is_symlink() and info.st_uid == os.geteuid()


def _put(path: Path, value: bytes, mode: int) -> None:
    descriptor = os.open(path, _FILE, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(value)


def _remove(folder: Path) -> None:
    # A folder may be the job's account's, which took its own right to write away.
    with contextlib.suppress(OSError):
        if not folder.is_symlink():
            folder.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def hide_in_files(folder: Path, account: Account, mask: Mask) -> None:
    """Mask the log of an ended attempt where it lies."""
    if not mask:
        return
    for name, owner in (("stdout", None), ("stderr", None), ("job/display.jsonl", account.uid)):
        try:
            _hide(folder, name, owner, mask)
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("%s of %s cannot be masked: %s", name, folder.name, error.strerror)


def _hide(folder: Path, name: str, owner: int | None, mask: Mask) -> None:
    *steps, last = name.split("/")
    current = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for step in steps:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            following = os.open(step, flags, dir_fd=current)
            os.close(current)
            current = following
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        file = os.open(last, flags, dir_fd=current)
    finally:
        os.close(current)
    try:
        if owner is None or os.fstat(file).st_uid == owner:
            _overwrite(file, mask)
    finally:
        os.close(file)


_PIECE = 1 << 20


def _overwrite(file: int, mask: Mask) -> None:
    """Each value that the file holds becomes stars, in place: read positions stay right."""
    offset = 0
    while data := os.pread(file, _PIECE + mask.longest, offset):
        for start, end in mask.spans(data):
            os.pwrite(file, b"*" * (end - start), offset + start)
        offset += _PIECE
