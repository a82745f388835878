"""A real Slurm of one node in a temporary directory, as a peer: tuned for short jobs, without accounting.

Needs the packages slurmctld, slurmd, slurm-client and munge, and root. See slurm.conf(5) and Slurm's own high
throughput guide for the settings.
"""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

_CONF = """\
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={port}
SlurmdPort={node_port}
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,default_queue_depth=10000
SlurmdParameters=config_overrides
MaxJobCount=100000
MaxArraySize=100001
MinJobAge=2
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SlurmctldDebug=error
SlurmdDebug=error
NodeName={host} NodeAddr=127.0.0.1 CPUs={slots} State=UNKNOWN
PartitionName=bench Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs that are not there."""
    return [name for name in _PROGRAMS if not any(Path(d, name).exists() for d in _PATH.split(":") if d)]


class Slurm:
    """A running one; `run` calls its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            argv, env=self.env, cwd=self.folder, timeout=120, check=True, capture_output=True, text=True
        )
        return done.stdout

    def one_by_one(self, count: int) -> float:
        """Seconds from the first `sbatch` until the queue is empty, a job each."""
        begun = time.perf_counter()
        for _ in range(count):
            self.run("sbatch", "--parsable", "-o", "/dev/null", "--wrap", "true")
        self._empty()
        return time.perf_counter() - begun

    def as_array(self, count: int) -> float:
        """Seconds for an array of `count`."""
        begun = time.perf_counter()
        self.run("sbatch", "--parsable", "-o", "/dev/null", f"--array=1-{count}", "--wrap", "true")
        self._empty()
        return time.perf_counter() - begun

    def _empty(self) -> None:
        while self.run("squeue", "-h", "-t", "PD,R,CF,CG").strip():
            time.sleep(0.2)


@contextmanager
def slurm(slots: int = 64) -> Iterator[Slurm]:
    """Start one with `slots` cores to give out; all of it is gone afterwards."""
    host = platform.node().partition(".")[0]
    with tempfile.TemporaryDirectory(prefix="perijove-slurm-", dir="/run") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("munge", "state", "spool"):
            (folder / part).mkdir(mode=0o755)
        (folder / "munge/key").write_bytes(os.urandom(1024))
        (folder / "munge/key").chmod(0o400)
        conf = _CONF.format(host=host, folder=folder, port=42170, node_port=42171, slots=slots)
        (folder / "slurm.conf").write_text(conf)
        (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        peer = Slurm(folder)
        munge = [
            f"--{name}={folder}/munge/{name}" for name in ("socket", "pid-file", "log-file", "seed-file")
        ]
        commands = [
            ["munged", "-F", f"--key-file={folder}/munge/key", *munge],
            ["slurmctld", "-D", "-f", f"{folder}/slurm.conf"],
            ["slurmd", "-D", "-N", host, "-f", f"{folder}/slurm.conf"],
        ]
        running = []
        try:
            with (folder / "log").open("ab") as log:
                for argv in commands:
                    running.append(subprocess.Popen(argv, env=peer.env, stdout=log, stderr=log))
                    time.sleep(0.5)
            _ready(peer)
            yield peer
        finally:
            for process in reversed(running):
                process.terminate()
            for process in reversed(running):
                process.wait(30)


def _ready(peer: Slurm) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = subprocess.run(
            ["sinfo", "-h", "-o", "%t"], env=peer.env, capture_output=True, text=True, timeout=20, check=False
        )
        if found.stdout.strip() == "idle":
            return
        time.sleep(0.2)
    raise RuntimeError(f"Slurm did not start:\n{(peer.folder / 'log').read_text()[-3000:]}")
