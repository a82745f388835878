"""(job, site) -> the order for its node: nothing is left to decide but paths on the node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from perijove.model import Job, JobSpec, Node
from perijove_hub.accounts import Identity
from perijove_hub.admission.lists import Lists
from perijove_hub.admission.volumes import mounts_of
from perijove_hub.jobs.arrays import variables
from perijove_hub.jobs.lifecycle import attempt_of
from perijove_hub.settings import Settings
from perijove_spawners.protocol import Order

RUNNER = ("python", "-m", "perijove.runner")
"""Runs notebooks and functions inside the job."""


def order_of(
    job: Job,
    identity: Identity,
    settings: Settings,
    node: Node,
    lists: Lists,
    *,
    gang: Sequence[str] = (),
    grace: float | None = None,
    fence: int = 0,
) -> Order:
    """The order for the job's current attempt, for the agent of `node` as it announced itself.

    `gang`: the names of all nodes of its gang, by rank. `grace`: the policy's. `fence`: of the lease.
    """
    spec = job.spec
    # Plain processes see the node's own paths; what runs containers mounts volumes.
    if not any(offered.containers for offered in node.launchers if offered.name == job.launcher):
        identity = as_process(identity)
    assert job.launcher is not None
    return Order(
        attempt=attempt_of(job),
        incarnation=node.incarnation,
        launcher=job.launcher,
        owner=job.owner,
        account=identity.account,
        title=job.name,
        command=command_of(spec),
        script=spec.script,
        args=tuple(spec.args),
        image=spec.image,
        pull=lists.pull_of(spec.image, spec.project),
        env={**variables(job, gang), **_parameters(spec), **spec.env},
        mounts=mounts_of(spec, job.owner, identity, lists.volumes),
        make_home=identity.managed,
        home_limit=identity.home_limit,
        inputs=inputs_of(spec),
        outputs=outputs_of(spec),
        **_surroundings(spec),
        cpu=spec.cpu,
        memory=spec.memory,
        shm_size=spec.shm_size,
        gpus=tuple(job.gpus),
        slots={name: tuple(units) for name, units in job.slots.items()},
        devices=devices_of(job, node),
        network="none" if spec.sealed else spec.network,
        ports=tuple(spec.ports),
        time_limit=spec.time_limit,
        warning=(spec.signal.signal, spec.signal.before) if spec.signal else None,
        grace=settings.grace if grace is None else grace,
        labels=dict(spec.labels),
        fence=fence,
    )


def _surroundings(spec: JobSpec) -> dict[str, Any]:
    return {
        "cwd": spec.cwd,
        "stdin": spec.stdin,
        "stdout": spec.stdout,
        "stderr": spec.stderr,
        "entrypoint": spec.entrypoint is not None,
        "sealed": spec.sealed,
        "project": spec.project,
        "root": spec.user == "root",
        "ipc": spec.ipc,
        "gui": spec.gui,
        "tmp_disk": spec.tmp_disk,
    }


def devices_of(job: Job, node: Node) -> tuple[str, ...]:
    """Paths of the device nodes that come with the units it holds."""
    held = [
        node.slots[name][unit]
        for name, units in job.slots.items()
        for unit in units
        if unit < len(node.slots.get(name, ()))
    ]
    return tuple(dict.fromkeys(path for slot in held for path in slot.devices))


def as_process(identity: Identity) -> Identity:
    """The identity of a plain process, which finds its home where the node has it."""
    return replace(identity, account=replace(identity.account, home=identity.home_source))


def _parameters(spec: JobSpec) -> dict[str, str]:
    """A notebook's parameters; in a variable, since everybody on the node can read a command line."""
    return {"PERIJOVE_PARAMETERS": json.dumps(dict(spec.parameters))} if spec.parameters else {}


def command_of(spec: JobSpec) -> tuple[str, ...]:
    """Program and arguments; empty for a script, which the node stages."""
    if spec.command is not None:
        return tuple(spec.command)
    if spec.notebook is not None:
        kept = ("--output", spec.output_notebook) if spec.output_notebook else ()
        return (*RUNNER, "notebook", spec.notebook, *kept)
    if spec.function is not None:
        return (*RUNNER, "function")
    return ()


def inputs_of(spec: JobSpec) -> dict[str, str]:
    """Files to be staged."""
    return {**spec.inputs, **({"function.pkl": spec.function} if spec.function else {})}


def outputs_of(spec: JobSpec) -> dict[str, str]:
    """What is to be kept: name -> place."""
    made: dict[str, str] = {}
    if spec.function:
        made = {"result.pkl": "file:result.pkl"}
    elif spec.notebook and not spec.output_notebook:
        made = {"notebook.ipynb": "file:notebook.ipynb"}
    return {**spec.outputs, **made}
