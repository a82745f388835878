"""Facts of this host that a result may depend on."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

import psutil

from perijove.model import Gpu, Machine
from perijove_spawners.node.gpus import driver_version


def machine(gpus: Iterable[Gpu]) -> Machine:
    """What this host is, with these devices; asks files and the driver, so in a thread."""
    return Machine(
        host=platform.node(),
        kernel=f"{platform.system()} {platform.release()}",
        os=_system(),
        arch=platform.machine(),
        cpu_model=cpu_model(_text("/proc/cpuinfo")) or platform.processor(),
        cores=os.cpu_count() or 1,
        memory=int(psutil.virtual_memory().total),
        gpus=[gpu.model or gpu.uuid for gpu in gpus],
        gpu_driver=driver_version(),
    )


def cpu_model(text: str) -> str:
    """The processor that ``/proc/cpuinfo`` names (proc_cpuinfo(5)); on Arm that is numbers."""
    fields = dict(re.findall(r"^([^\t:]+?)\s*:\s*(.+?)\s*$", text, re.MULTILINE))
    for name in ("model name", "Processor", "cpu model", "cpu"):
        if name in fields:
            return " ".join(fields[name].split())
    arm = [fields[name] for name in ("CPU implementer", "CPU part", "CPU variant") if name in fields]
    return f"Arm {' '.join(arm)}" if arm else ""


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return platform.system()


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
