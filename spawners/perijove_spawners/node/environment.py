"""What a job runs and finds in its environment: pure functions of its order."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from perijove.model import Gpu
from perijove_spawners.launcher import JOB_DIRECTORY
from perijove_spawners.node import display
from perijove_spawners.node.staging import INPUT_DIRECTORY, descriptor_file
from perijove_spawners.places import Place
from perijove_spawners.protocol import Order

# The shell that a script without a first line `#!` gets is found inside the container.
_SHELL = 'if command -v bash >/dev/null 2>&1; then exec bash "$0" "$@"; else exec sh "$0" "$@"; fi'
MOST_VARIABLES = 1000
_INPUT = re.compile(r"\$\{\{ input:([^ }]+) \}\}")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def job_directory(containers: bool, host_path: str) -> str:
    """Where the job sees its directory."""
    return JOB_DIRECTORY if containers else host_path


def command(order: Order, directory: str) -> tuple[str, ...]:
    """The argument vector; a script runs through its interpreter, so that it need not be executable."""
    if order.script is None:
        return order.command
    return (*_interpreter(order.script), f"{directory}/script", *order.args)


def placed(order: Order, containers: bool, directory: str) -> Order:
    """`order` with each ``${{ input:NAME }}`` of its texts replaced by the path at which the job sees it."""
    if not order.inputs:
        return order

    def path(match: re.Match[str]) -> str:
        return input_path(match[1], containers, directory) if match[1] in order.inputs else match[0]

    def text(value: str) -> str:
        return _INPUT.sub(path, value)

    return replace(
        order,
        command=tuple(map(text, order.command)),
        args=tuple(map(text, order.args)),
        script=None if order.script is None else text(order.script),
        env={name: text(value) for name, value in order.env.items()},
    )


def _interpreter(script: str) -> tuple[str, ...]:
    first, _, _ = script.partition("\n")
    if first.startswith("#!") and (words := first[2:].strip().split(None, 1)):
        # As execve(2) has it: all that follows the interpreter is one argument.
        return tuple(words)
    return ("/bin/sh", "-c", _SHELL)


def home(order: Order, containers: bool, directory: str) -> str:
    """The job's HOME: the account's, or the job directory in a container that does not see that."""
    path = order.account.home
    if order.root:
        return directory  # the home is the user's alone, and read-only
    if not containers or any(_covers(mount.target, path) for mount in order.mounts):
        return path
    return directory


def cwd(order: Order, containers: bool, directory: str) -> str:
    """The working directory."""
    return order.cwd or home(order, containers, directory)


def environment(
    order: Order, *, node: str, containers: bool, directory: str, scratch: str = ""
) -> dict[str, str]:
    """All variables of the job: defaults, over them the spec's, over those what states a fact."""
    account = order.account
    defaults = {
        "HOME": home(order, containers, directory),
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": "/bin/sh",
        "OMP_NUM_THREADS": str(max(1, math.ceil(order.cpu))),
        # Kernels start also where the home is full or read-only.
        "JUPYTER_RUNTIME_DIR": f"{directory}/.jupyter-runtime",
    }
    if order.root:
        defaults |= {"USER": "root", "LOGNAME": "root"}
    if scratch:
        defaults["TMPDIR"] = scratch
    if order.gui:
        defaults |= {"DISPLAY": display.DEFAULT, "XAUTHORITY": f"{directory}/{display.AUTHORITY}"}
    if not containers:
        # `python` in a job is the one that has perijove.
        defaults["PATH"] = f"{sys.prefix}/bin:{_DEFAULT_PATH}"
        defaults["SHELL"] = "/bin/bash"
        defaults["LANG"] = "C.UTF-8"
    facts = {
        "PERIJOVE_JOB_ID": str(order.attempt.job),
        "PERIJOVE_ATTEMPT": str(order.attempt.number),
        "PERIJOVE_JOB_DIR": directory,
        "PERIJOVE_NODE": node,
        "PERIJOVE_CPUS": f"{order.cpu:g}",
        "PERIJOVE_MEMORY": str(order.memory),
        **device_variables(order.gpus),
        **slot_variables(order.slots),
        **input_variables(order.inputs, containers, directory),
    }
    if containers and order.image:
        facts["PERIJOVE_IMAGE"] = order.image
    if scratch:
        facts["PERIJOVE_SCRATCH"] = scratch
    if order.root:
        facts |= {"PERIJOVE_UID": str(account.uid), "PERIJOVE_GID": str(account.gid)}
    return {**defaults, **order.env, **facts}


def device_variables(gpus: Sequence[Gpu]) -> Mapping[str, str]:
    """The two variables that name exactly the devices allotted.

    A real device goes by its UUID, which means the same in and out of a container; a stand-in by its index.
    """
    names = ",".join(g.uuid if g.uuid.startswith(("GPU-", "MIG-")) else str(g.index) for g in gpus)
    return {"CUDA_VISIBLE_DEVICES": names, "NVIDIA_VISIBLE_DEVICES": names or "void"}


def slot_variables(slots: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Which units of each countable resource the job holds: ``PERIJOVE_RESOURCE_GPU_10_5=0,3``."""
    return {
        f"PERIJOVE_RESOURCE_{re.sub('[^A-Z0-9]', '_', name.upper())}": ",".join(map(str, units))
        for name, units in slots.items()
    }


def input_path(name: str, containers: bool, directory: str) -> str:
    """Where the job sees an input."""
    return f"{INPUT_DIRECTORY}/{name}" if containers else f"{directory}/input/{name}"


def input_variables(names: Collection[str], containers: bool, directory: str) -> dict[str, str]:
    """``INPUT_NAME`` for each input, with ``_`` for what no name of a variable may hold.

    Inputs whose variables would have the same name have none, and neither have those of a job with more
    than :data:`MOST_VARIABLES`, for which the kernel has no room (execve(2)).
    """
    if len(names) > MOST_VARIABLES:
        return {}
    variables = [(f"INPUT_{re.sub('[^A-Za-z0-9_]', '_', name)}", name) for name in names]
    times = Counter(variable for variable, _ in variables)
    return {
        variable: input_path(name, containers, directory)
        for variable, name in variables
        if times[variable] == 1
    }


def descriptors(order: Order, directory: str) -> dict[int, str]:
    """File descriptors from 3 on that are outputs, and the files that they are open on."""
    numbers = {Place.parse(place).descriptor for place in order.outputs.values()}
    return {
        number: f"{directory}/{descriptor_file(number)}"
        for number in sorted(n for n in numbers if n and n > 2)
    }


def _covers(target: str, path: str) -> bool:
    return path == target or path.startswith(target.rstrip("/") + "/")
