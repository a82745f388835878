"""``perijove simulate`` and ``perijove rehearse``: what a policy would do, before it does it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from perijove.model import OperatorError, PerijoveError

if TYPE_CHECKING:
    from perijove_hub.policy.document import Policy
    from perijove_hub.simulation.fleet import Failures
    from perijove_hub.simulation.measure import Report
    from perijove_hub.simulation.rehearsal import Rehearsal
    from perijove_hub.simulation.site import Site, Watch
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
    write: Annotated[
        Path | None, typer.Option(help="Write what happened to this file, in the Standard Workload Format.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Play a trace, or made-up users, on a site that is not there, with the service's own scheduler.

    Says who waits how long, how full the nodes are and how fair it is.
    """
    from perijove_hub.simulation.fleet import Failures

    try:
        broken = Failures(_seconds("failures", failures), seed=seed) if failures else None
        pause = _seconds("every", every) if every else 0.0
        report = _simulate(
            trace,
            synthetic,
            _site(nodes, policy, broken, pause),
            _seconds("starved", starved),
            write,
            as_json,
        )
    except (PerijoveError, OSError) as error:
        give_up(error)
    _print(report, as_json)


def _site(nodes: str, policy: Path | None, failures: Failures | None, every: float) -> Site:
    from perijove_hub.simulation.fleet import nodes_of
    from perijove_hub.simulation.site import Site

    return Site(nodes_of(nodes), policy_of(policy), failures, every=every)


def _simulate(
    trace: Path | None, synthetic: str, site: Site, starved: float, write: Path | None, quiet: bool
) -> Report:
    from perijove_hub.simulation.engine import Simulation
    from perijove_hub.simulation.measure import Measure
    from perijove_hub.simulation.progress import Bar
    from perijove_hub.simulation.swf import Recorder

    measure, recorder = Measure(starved), Recorder()
    arrivals = _arrivals(trace, synthetic, site)
    with Bar(quiet=quiet) as bar:
        watch: list[Watch] = [measure, recorder] if write is not None else [measure]
        simulation = Simulation(site, bar.through(arrivals), watch)
        simulation.run()
    if write is not None:
        with write.open("w") as file:
            recorder.write(file)
    return measure.report(simulation)


def _arrivals(trace: Path | None, synthetic: str, site: Site) -> Iterable[Arrival]:
    from perijove_hub.simulation import swf
    from perijove_hub.simulation.synthetic import Demand
    from perijove_hub.simulation.synthetic import synthetic as made_up

    if (trace is not None) == bool(synthetic):
        raise OperatorError("give either --trace FILE.swf or --synthetic users=50,days=7")
    if trace is None:
        return made_up(Demand.parse(synthetic))
    return swf.read(trace, int(max(node.cpus for node in site.nodes)))


def rehearse(
    policy: Annotated[Path, typer.Option(help="The policy to try.", exists=True, dir_okay=False)],
    since: Annotated[str, typer.Option(help="Replay the last so much time, such as 30d.")] = "30d",
    state: Annotated[
        Path | None, typer.Option(help="Directory of all state.", envvar="PERIJOVE_STATE", file_okay=False)
    ] = None,
    database: Annotated[str | None, typer.Option(help="URL of the database, if not the settings'.")] = None,
    nodes: Annotated[
        str | None,
        typer.Option(help="Other nodes than the recorded ones: NUMBERxCORES[:MEMORY][:NUMBERgpu]."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay what happened under another policy, and say for whom waiting would become longer or shorter.

    Only reads; the service may be running. Nothing is applied: `perijove policy apply` does that.
    """
    from perijove_hub.simulation.fleet import nodes_for
    from perijove_hub.simulation.opening import record_of
    from perijove_hub.simulation.progress import Bar
    from perijove_hub.simulation.rehearsal import rehearse as play

    try:
        tried = policy_of(policy)
        record = record_of(state, database, _seconds("since", since))
        there = nodes_for(nodes, {one.launcher for one in record.arrivals}) if nodes else ()
        if not there and not record.nodes and not record.changes:
            raise OperatorError("nodes: the database does not say which there were; give --nodes")
        with Bar(quiet=as_json, total=2 * len(record.arrivals)) as bar:
            found = play(record, tried, there, bar.through)
    except (PerijoveError, OSError) as error:
        give_up(error)
    _print(found, as_json)


def _print(found: Report | Rehearsal, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found.as_json()))
        return
    from rich.console import Console

    from perijove_hub.simulation.show import show

    show(found, Console())


def policy_of(path: Path | None) -> Policy:
    """The policy in a file; all defaults without one."""
    from perijove_hub.policy.document import Policy, load

    if path is None:
        return Policy()
    try:
        return load(path.read_text())
    except (OSError, UnicodeDecodeError, PerijoveError) as error:
        raise OperatorError(f"{path}: {error}") from error


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
