"""A real Grid Engine of one host in a temporary directory, as a peer, with the shortest intervals it takes.

Needs the packages gridengine-master, gridengine-exec and gridengine-client, and root. See sge_conf(5),
sched_conf(5) and queue_conf(5).
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_PACKAGED = Path("/var/lib/gridengine")
_PROGRAMS = ("sge_qmaster", "sge_execd", "qsub", "qstat", "qconf")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_BOOTSTRAP = """\
admin_user sgeadmin
default_domain none
ignore_fqdn true
spooling_method berkeleydb
spooling_lib libspoolb
spooling_params {folder}/spooldb
binary_path /usr/sbin
qmaster_spool_dir {folder}/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""
_NONE = (
    "load_thresholds suspend_thresholds ckpt_list pe_list prolog epilog starter_method suspend_method "
    "resume_method terminate_method owner_list user_lists xuser_lists subordinate_list complex_values "
    "projects xprojects calendar"
)
_LIMITS = "rt cpu fsize data stack core rss vmem"


def missing() -> list[str]:
    """Programs that are not there."""
    return [name for name in _PROGRAMS if not any(Path(d, name).exists() for d in _PATH.split(":") if d)]


class GridEngine:
    """A running one; `run` calls its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.host = folder, platform.node()
        ports = {"SGE_QMASTER_PORT": "42175", "SGE_EXECD_PORT": "42176"}
        self.env = {**os.environ, "PATH": _PATH, "SGE_ROOT": str(folder), "SGE_CELL": "default", **ports}

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            argv, env=self.env, cwd=self.folder, timeout=120, check=True, capture_output=True, text=True
        )
        return done.stdout

    def one_by_one(self, count: int) -> float:
        """Seconds from the first `qsub` until the queue is empty, a job each."""
        begun = time.perf_counter()
        for _ in range(count):
            self.run("qsub", "-terse", "-b", "y", "-o", "/dev/null", "-e", "/dev/null", "/bin/true")
        self._empty()
        return time.perf_counter() - begun

    def as_array(self, count: int) -> float:
        """Seconds for an array of `count`."""
        begun = time.perf_counter()
        out = ("-o", "/dev/null", "-e", "/dev/null")
        self.run("qsub", "-terse", "-b", "y", *out, "-t", f"1-{count}", "/bin/true")
        self._empty()
        return time.perf_counter() - begun

    def _empty(self) -> None:
        while self.run("qstat").strip():
            time.sleep(0.2)

    def set_up(self, slots: int) -> None:
        """Tell the master of its one host and queue."""
        admin = ["setpriv", "--reuid=sgeadmin", "--regid=sgeadmin", "--init-groups"]
        with contextlib.suppress(subprocess.CalledProcessError):  # root is a manager already
            self.run(*admin, "qconf", "-am", "root")
        for flag in ("-ah", "-as"):
            with contextlib.suppress(subprocess.CalledProcessError):
                self.run("qconf", flag, self.host)
        scheduler = self.run("qconf", "-ssconf")
        for name, value in (
            ("schedule_interval", "0:0:1"),
            ("flush_submit_sec", "1"),
            ("flush_finish_sec", "1"),
        ):
            scheduler = re.sub(rf"(?m)^{name} .*", f"{name} {value}", scheduler)
        self._given("-Msconf", "scheduler", scheduler)
        conf = self.run("qconf", "-sconf", "global")
        for pattern, value in (("min_[ug]id .*", "min_uid 0"), ("mailer .*", "mailer /bin/true")):
            conf = re.sub(rf"(?m)^{pattern}", value, conf)
        conf = conf.replace("min_uid 0\nmin_uid 0", "min_uid 0\nmin_gid 0")
        self._given("-Mconf", "global", conf)
        nones = "\n".join(f"{name} NONE" for name in ("load_scaling", "complex_values", "user_lists",
            "xuser_lists", "projects", "xprojects", "usage_scaling", "report_variables"))  # fmt: skip
        self._given("-Ae", "host", f"hostname {self.host}\n{nones}\n")
        self._given("-Ahgrp", "hosts", f"group_name @allhosts\nhostlist {self.host}\n")
        self._given("-Aq", "queue", _queue(slots))

    def _given(self, flag: str, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        self.run("qconf", flag, name)


def _queue(slots: int) -> str:
    lines = [
        "qname all.q", "hostlist @allhosts", "seq_no 0", "nsuspend 1", "suspend_interval 00:05:00",
        "priority 0", "min_cpu_interval 00:05:00", "processors UNDEFINED",
        "qtype BATCH", "rerun FALSE", f"slots {slots}",
        "tmpdir /tmp", "shell /bin/bash", "shell_start_mode unix_behavior", "notify 00:00:05",
        "initial_state default",
        *(f"{name} NONE" for name in _NONE.split()),
        *(f"{kind}_{name} INFINITY" for name in _LIMITS.split() for kind in "sh"),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


@contextmanager
def _folder() -> Iterator[Path]:
    name = tempfile.mkdtemp(prefix="perijove-sge-", dir="/run")
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)


@contextmanager
def grid_engine(slots: int = 64) -> Iterator[GridEngine]:
    """Start one with `slots` to give out; all of it is gone afterwards."""
    with _folder() as folder:
        peer = GridEngine(folder)
        common = folder / "default/common"
        common.mkdir(parents=True)
        for name in ("util", "bin", "utilbin", "lib"):
            (folder / name).symlink_to(_PACKAGED / name)
        (common / "bootstrap").write_text(_BOOTSTRAP.format(folder=folder))
        (common / "act_qmaster").write_text(f"{peer.host}\n")
        (common / "host_aliases").write_text(f"{peer.host} localhost\n")
        for name in ("spooldb", "qmaster", "execd"):
            (folder / name).mkdir()
        subprocess.run(["chown", "-R", "sgeadmin:sgeadmin", folder], check=True)
        folder.chmod(0o755)
        init = ["/usr/share/gridengine/scripts/init_cluster", str(folder), "default", f"{folder}/spooldb"]
        admin = ["setpriv", "--reuid=sgeadmin", "--regid=sgeadmin", "--init-groups"]
        peer.run(*admin, *init, "sgeadmin")
        try:
            peer.run("sge_qmaster")
            _until(lambda: bool(peer.run("qconf", "-sconf", "global")), "the master")
            peer.set_up(slots)
            peer.run("sge_execd")
            _until(lambda: _up(peer), "the host")
            yield peer
        finally:
            for flag in ("-ke", "-km"):
                with contextlib.suppress(subprocess.SubprocessError):
                    peer.run("qconf", flag, *(["all"] if flag == "-ke" else []))
            time.sleep(2)


def _up(peer: GridEngine) -> bool:
    lines = [line.split() for line in peer.run("qstat", "-f", "-q", "all.q").splitlines()]
    return any(words[:1] and words[0].startswith("all.q@") and len(words) == 5 for words in lines)


def _until(ready: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(subprocess.CalledProcessError):
            if ready():
                return
        time.sleep(0.2)
    raise RuntimeError(f"Grid Engine: {what} did not come up")
