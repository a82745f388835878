"""``perijove simulate`` and ``perijove rehearse``: what a policy would do, before it does it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from perijove.model import OperatorError, PerijoveError

if TYPE_CHECKING:
    from perijove_hub.policy.document import Policy
    from perijove_hub.simulation.trace import Arrival

Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def simulate(
    trace: Annotated[
        Path | None,
        typer.Option(help="A trace in the Standard Workload Format.", exists=True, dir_okay=False),
    ] = None,
    synthetic: Annotated[
        str, typer.Option(help="Made-up users instead: users=50,days=7,seed=1 and more (see the manual).")
    ] = "",
    nodes: Annotated[
        str, typer.Option(help="The site: NUMBERxCORES[:MEMORY][:NUMBERgpu], several with commas.")
    ] = "10x64:256G:4gpu",
    policy: Annotated[
        Path | None,
        typer.Option(help="The policy; all defaults when not given.", exists=True, dir_okay=False),
    ] = None,
    failures: Annotated[
        str | None, typer.Option(help="Mean time between failures of a node, such as 30d; none by default.")
    ] = None,
    every: Annotated[
        str | None, typer.Option(help="Time between two passes over the queue at least, such as 1s.")
    ] = None,
    starved: Annotated[str, typer.Option(help="Who waits longer counts as starved.")] = "3d",
    seed: Annotated[int, typer.Option(help="Of the failures.")] = 0,
    as_json: Json = False,
) -> None:
    """Play a trace, or made-up users, on a site that is not there, with the service's own scheduler.

    Says who waits how long, how full the nodes are and how fair it is.
    """
    from perijove_hub.simulation.engine import Simulation, Site
    from perijove_hub.simulation.fleet import Failures, nodes_of
    from perijove_hub.simulation.measure import Measure
    from perijove_hub.simulation.synthetic import Demand
    from perijove_hub.simulation.synthetic import synthetic as made_up

    try:
        there, rules = nodes_of(nodes), policy_of(policy)
        if (trace is not None) == bool(synthetic):
            raise OperatorError("give either --trace FILE.swf or --synthetic users=50,days=7")
        arrivals: Iterable[Arrival] = made_up(Demand.parse(synthetic))
        broken = Failures(_seconds("failures", failures), seed=seed) if failures else None
        site = Site(there, rules, broken, every=_seconds("every", every) if every else 0.0)
        measure = Measure(_seconds("starved", starved))
    except (PerijoveError, OSError) as error:
        give_up(error)
    with progress(arrivals, quiet=as_json) as watched:
        simulation = Simulation(site, watched, [measure])
        simulation.run()
    report = measure.report(simulation)
    if as_json:
        typer.echo(json.dumps(report.as_json()))
        return
    from rich.console import Console

    from perijove_hub.simulation.show import show

    show(report, Console())


def policy_of(path: Path | None) -> Policy:
    """The policy in a file; all defaults without one."""
    from perijove_hub.policy.document import Policy, load

    if path is None:
        return Policy()
    try:
        return load(path.read_text())
    except (OSError, UnicodeDecodeError, PerijoveError) as error:
        raise OperatorError(f"{path}: {error}") from error


class progress:  # noqa: N801 - used like a function
    """A bar on standard error, as the submissions come; nothing when that is no terminal."""

    def __init__(self, arrivals: Iterable[Arrival], *, quiet: bool, total: int | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        console = Console(stderr=True)
        hidden = quiet or not console.is_terminal
        self._bar = Progress(*columns, console=console, transient=True, disable=hidden)
        self._arrivals, self._total = arrivals, total

    def __enter__(self) -> Iterator[Arrival]:
        self._bar.start()
        return self._counted(self._bar.add_task("submissions", total=self._total))

    def __exit__(self, *_error: object) -> None:
        self._bar.stop()

    def _counted(self, task: object) -> Iterator[Arrival]:
        for arrival in self._arrivals:
            self._bar.advance(task)  # type: ignore[arg-type]
            yield arrival


def _seconds(name: str, text: str) -> float:
    from perijove.model import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise OperatorError(f"{name}: {text!r} {error}") from None


def give_up(error: Exception) -> NoReturn:
    """Say it in one line, and end with status 1."""
    typer.echo(f"perijove: {error}", err=True)
    raise typer.Exit(1) from error
