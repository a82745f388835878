"""Batch computing for JupyterHub: submit work from a notebook, a script or a terminal.

In a notebook: ``%load_ext perijove``, then ``%%submit`` at the top of a cell. In a script:

>>> import perijove
>>> job = perijove.submit("python", "train.py", cpus=4, memory="8G")
>>> job.wait().state
>>> perijove.run(pow, 2, 10).result()

Names are loaded when first used, so that ``import perijove`` costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from perijove.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from perijove.building import Workflow
    from perijove.client import AsyncClient
    from perijove.connection import NotConnectedError
    from perijove.dask_cluster import DaskCluster
    from perijove.handle import AsyncJob, JobFailedError
    from perijove.model.errors import (
        ConflictError,
        ForbiddenError,
        InvalidSpecError,
        NotFoundError,
        OperatorError,
        PerijoveError,
        TooLargeError,
        UnauthorizedError,
        UnavailableError,
        UserError,
    )
    from perijove.model.spec import JobSpec
    from perijove.model.states import State
    from perijove.reporting import progress, record
    from perijove.runs import AsyncRun
    from perijove.sweeps import Sweep
    from perijove.sync import Client, Job
    from perijove.sync_runs import Run

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "AsyncRun",
    "Client",
    "ConflictError",
    "DaskCluster",
    "ForbiddenError",
    "InvalidSpecError",
    "Job",
    "JobFailedError",
    "JobSpec",
    "NotConnectedError",
    "NotFoundError",
    "OperatorError",
    "PerijoveError",
    "Run",
    "State",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "UserError",
    "Workflow",
    "__version__",
    "connect",
    "job",
    "jobs",
    "load_ipython_extension",
    "progress",
    "record",
    "run",
    "run_workflow",
    "share",
    "submit",
    "sweep",
    "top",
    "unload_ipython_extension",
    "usage",
    "workflow",
    "workflows",
]

_HOMES = {
    "building": ("Workflow",),
    "client": ("AsyncClient",),
    "connection": ("NotConnectedError",),
    "dask_cluster": ("DaskCluster",),
    "handle": ("AsyncJob", "JobFailedError"),
    "model.errors": (
        "ConflictError",
        "ForbiddenError",
        "InvalidSpecError",
        "NotFoundError",
        "OperatorError",
        "PerijoveError",
        "TooLargeError",
        "UnauthorizedError",
        "UnavailableError",
        "UserError",
    ),
    "model.spec": ("JobSpec",),
    "model.states": ("State",),
    "reporting": ("progress", "record"),
    "runs": ("AsyncRun",),
    "sync": ("Client", "Job"),
    "sync_runs": ("Run",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_client: Client | None = None


def connect(url: str | None = None, token: str | None = None) -> Client:
    """The client that the functions here and the magics use from now on.

    Without arguments the service is found by itself; see :mod:`perijove.connection`.
    """
    global _client
    from perijove.sync import Client

    _client = Client(url, token)
    return _client


def default_client() -> Client:
    """The client made by :func:`connect`, or one made now."""
    return _client if _client is not None else connect()


def submit(*command: str, **options: Any) -> Job:
    """Submit a command: ``submit("python", "train.py", cpus=4, memory="8G", time="2h")``.

    `options` are those of ``perijove submit`` or fields of a JobSpec. Returns once the job is safely in the
    queue; see :class:`perijove.sync.Job` for what can be done with it.
    """
    from perijove.workplace import place

    client = default_client()
    fields = {**options, "command": list(command)} if command else options
    return client.submit(place(fields, client.connection.launchers))


def run(
    function: Callable[..., Any], *args: Any, options: dict[str, Any] | None = None, **kwargs: Any
) -> Job:
    """Submit a call of a Python function; ``run(f, x).result()`` is what it returned."""
    return default_client().run(function, *args, options=options, **kwargs)


def job(job_id: int | str) -> Job:
    """A job by its id, from any notebook and at any time later."""
    return default_client().job(job_id)


def jobs(**filters: Any) -> list[Job]:
    """Jobs, newest first; see :meth:`perijove.sync.Client.jobs`."""
    return default_client().jobs(**filters)


def run_workflow(workflow: Any, parameters: dict[str, Any] | None = None, **how: Any) -> Run:
    """Start a run of a workflow: a YAML or JSON file, or a :class:`Workflow`.

    See :meth:`perijove.Client.run_workflow`.
    """
    return default_client().run_workflow(workflow, parameters, **how)


def workflow(run_id: int | str) -> Run:
    """A run of a workflow by its id, from any notebook and at any time later."""
    return default_client().workflow(run_id)


def workflows(**filters: Any) -> list[Run]:
    """Runs of workflows, newest first; see :meth:`perijove.Client.workflows`."""
    return default_client().workflows(**filters)


def sweep(
    notebook: str | Path,
    /,
    *,
    max_running: int | None = None,
    options: dict[str, Any] | None = None,
    **parameters: Any,
) -> Sweep:
    """Run a notebook for all combinations: ``sweep("fit.ipynb", lr=[0.1, 0.01], seed=range(5))``.

    The sweep is an array, a job for each combination, at most `max_running` at once; `options` are those of
    :func:`submit` (``{"cpus": 2}``). What the notebook records (:func:`record`) is in ``results``,
    ``table()`` and ``plot()`` of what is returned.
    """
    from perijove.sweeps import start

    return start(default_client(), notebook, parameters, max_running, options or {})


def usage(by: str | list[str] = "owner", **options: Any) -> list[dict[str, Any]]:
    """What jobs held, by owner, project, day, image, node or partition; see :meth:`perijove.Client.usage`."""
    return default_client().usage(by, **options)


def top(limit: int = 50) -> list[dict[str, Any]]:
    """Running jobs by what they use now, the busiest first; see :meth:`perijove.Client.top`."""
    return default_client().top(limit)


def share() -> list[dict[str, Any]]:
    """The fair share: what is due to each user and project, and what they had."""
    return default_client().share()


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext perijove``."""
    from perijove.magics import register

    register(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext perijove``."""
    from perijove.magics import unregister

    unregister(shell)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
