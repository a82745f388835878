"""From a forked process to the user's program: everything between fork(2) and execve(2).

The standard library is all that is used here, and of that as little as possible: after a fork each page of
memory that is touched must be copied, and that is most of what a short job costs.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from perijove_spawners.process import kernel
from perijove_spawners.process.attempt_journal import Record

NOT_EXECUTABLE = 126
NOT_FOUND = 127
"""The codes a shell exits with (POSIX, Shell Command Language, 2.8.2)."""
_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_OWN_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC
_ASIDE = 64
_OPEN_MAX = os.sysconf("SC_OPEN_MAX")


def become(launch: Record, *, doors: Sequence[str], limit_memory: bool, ready: int, go: int) -> NoReturn:
    """Turn this forked process into the command of `launch`; it says ``ok`` or what is wrong on `ready`.

    It goes on when a byte comes through `go`, and ends when that is closed instead.
    """
    preparation = Preparation(launch)
    try:
        os.setsid()
        _close_all_but(ready, go)
        preparation.enter_groups(doors)
        if limit_memory:
            _limit_memory(launch["memory"])
        preparation.prepare()
        os.write(ready, b"ok")
        os.close(ready)
        if os.read(go, 1):
            preparation.place_descriptors()
            execute(launch["command"], preparation.env)
    except OSError as error:
        os.write(ready, f"{preparation.doing}: {error.strerror}".encode(errors="replace"))
    finally:
        os._exit(1)


def _close_all_but(*kept: int) -> None:
    """Close what the supervisor holds for others: a copy here would keep alive what must end with it."""
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, _OPEN_MAX)


def _limit_memory(memory: int) -> None:
    """Bound each process by itself, where no cgroup bounds them together.

    RLIMIT_DATA counts writable private memory (setrlimit(2)). RLIMIT_AS would also count address space that
    is merely reserved, of which threads, JIT compilers and CUDA take many times what they use.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    least = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (least, least))


class Preparation:
    """The steps; each raises ``OSError``, and then `doing` says for the user what could not be done."""

    def __init__(self, launch: Record) -> None:
        self.doing = "cannot begin"
        self._launch = launch
        self.env: dict[str, str] = dict(launch["env"])
        """The program's, complete once its account was taken."""
        self._opened: list[tuple[int, int]] = []

    def enter_groups(self, doors: Sequence[str]) -> None:
        """Move this process into the cgroups whose ``cgroup.procs`` are named."""
        for door in doors:
            self.doing = f"cannot enter the cgroup {door}"
            fd = os.open(door, os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, b"0")
            os.close(fd)

    def prepare(self) -> None:
        """Network, logs, account, directory, the user's own files: in this order."""
        supervisor = os.getppid()
        if self._launch["network"] == "none":
            self.doing = "cannot leave the network"
            kernel.leave_network()
        logs = self._open_log("stdout"), self._open_log("stderr")
        self.take_account()
        # Setting the account makes the kernel forget this, so it comes after.
        kernel.die_with_parent(signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(1)
        self.enter_directory()
        for number, (stream, log) in enumerate(zip(("stdout", "stderr"), logs, strict=True), start=1):
            own = self._launch[stream]
            self.doing = f"{stream}: cannot write {own}"
            os.dup2(log if own is None else os.open(own, _OWN_FLAGS, 0o666), number)
        self._open_others()

    def _open_others(self) -> None:
        if source := self._launch.get("stdin"):
            self.doing = f"cannot read {source}, its standard input"
            os.dup2(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), 0)
        for number, path in self._launch.get("descriptors", {}).items():
            self.doing = f"cannot write {path}, its file descriptor {number}"
            opened = os.open(path, _LOG_FLAGS, 0o600)
            # Far from those that are still in use.
            self._opened.append((int(number), fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, _ASIDE)))

    def place_descriptors(self) -> None:
        """Give the open files their numbers; nothing but these is open after."""
        for number, opened in self._opened:
            os.dup2(opened, number)

    def _open_log(self, stream: str) -> int:
        """The log in the attempt's directory, where the job's account cannot put anything.

        It belongs to the account, so that a program may open ``/dev/stderr``.
        """
        path = f"{self._launch['directory']}/{stream}"
        self.doing = f"cannot write the log {path}"
        fd = os.open(path, _LOG_FLAGS, 0o600)
        if os.geteuid() == 0:
            os.fchown(fd, self._launch["uid"], self._launch["gid"])
        return fd

    def take_account(self) -> None:
        """Become the account of the launch for good."""
        uid, gid = self._launch["uid"], self._launch["gid"]
        self.doing = f"cannot become uid {uid}, gid {gid}"
        os.umask(0o022)
        if os.geteuid() == 0:
            os.setgroups(self._launch["groups"])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        self._read_secrets()

    def _read_secrets(self) -> None:
        """Only here, as the account: no record of the launcher holds a value."""
        for variable, path in self._launch.get("secrets", {}).items():
            self.doing = f"cannot read the secret for {variable}"
            with open(path, "rb") as file:  # noqa: PTH123 -- see the module
                self.env[variable] = os.fsdecode(file.read())

    def enter_directory(self) -> None:
        """Change to the working directory, with the account's rights."""
        self.doing = f"cwd: cannot enter {self._launch['cwd']}"
        os.chdir(self._launch["cwd"])


def execute(command: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Execute the program, found on the PATH of `env`; it fails as in a shell."""
    try:
        os.execvpe(_found(command[0], env), list(command), env)  # noqa: S606 -- no shell is wanted
    except (OSError, ValueError) as error:
        text = f"perijove: cannot run '{command[0]}': {getattr(error, 'strerror', None) or error}\n"
        os.write(2, text.encode(errors="replace"))
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)


def _found(program: str, env: Mapping[str, str]) -> str:
    """Its path where that is plain: trying execve(2) in each directory takes longer than looking."""
    for folder in env.get("PATH", "").split(":") if "/" not in program else ():
        path = f"{folder}/{program}"
        if folder and os.access(path, os.X_OK) and os.path.isfile(path):  # noqa: PTH113 -- see above
            return path
    return program


def new_signals() -> None:
    """Ignore nothing from now on: what is ignored stays so for the programs it runs, execve(2).

    Python ignores SIGPIPE and SIGXFSZ, a shell SIGINT and SIGQUIT for what it runs in the background. A
    handler, unlike that, ends with execve, and meanwhile does no more than being ignored did.
    """
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def join() -> NoReturn:
    """Become a command beside a running attempt; the request is JSON on standard input."""
    request = json.load(sys.stdin)
    launch = request["launch"]
    preparation = Preparation(launch)
    new_signals()
    try:
        preparation.enter_groups(request["doors"])
        if launch["network"] == "none":
            preparation.doing = "cannot enter the job's network"
            kernel.enter_network(os.open(f"/proc/{request['beside']}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        kernel.no_new_privileges()
        preparation.take_account()
        preparation.enter_directory()
    except OSError as error:
        os.write(2, f"perijove: {preparation.doing}: {error.strerror}\n".encode(errors="replace"))
        os._exit(NOT_EXECUTABLE)
    os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
    execute(request["command"], preparation.env)
