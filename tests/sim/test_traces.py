"""Traces: made up, read and written; sizes of sites; the command."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from perijove.model import OperatorError
from perijove_hub.simulation import swf
from perijove_hub.simulation.commands import rehearse, simulate
from perijove_hub.simulation.engine import Simulation
from perijove_hub.simulation.fleet import Failures, nodes_of
from perijove_hub.simulation.measure import Measure, histogram
from perijove_hub.simulation.site import Site
from perijove_hub.simulation.synthetic import Demand, synthetic

LINE = "1 10 5 100 64 -1 -1 64 200 1024 1 3 2 7 1 -1 -1 -1"


def test_made_up_users_are_in_order_and_the_same_for_the_same_seed() -> None:
    found = list(synthetic(Demand(users=5, days=1, seed=4)))
    assert found == list(synthetic(Demand(users=5, days=1, seed=4)))
    assert all(one.at <= other.at for one, other in pairwise(found))
    assert any(one.spec.array for one in found) and any(one.spec.gpus.count for one in found)


@pytest.mark.parametrize("text", ["users", "users=x", "nobody=1", "users=-1", "days=nan"])
def test_a_wrong_demand_is_named(text: str) -> None:
    with pytest.raises(OperatorError, match="synthetic"):
        Demand.parse(text)


def test_sizes_of_sites() -> None:
    found = nodes_of("2x64:256G:4gpu=H100,big=1x128")
    assert [one.name for one in found] == ["n1", "n2", "big1"]
    assert (found[0].memory, len(found[0].gpus), found[0].gpus[0].model) == (256 << 30, 4, "H100")
    for wrong in ("", "64", "0x64", "2x64:lots", "2x0"):
        with pytest.raises(OperatorError, match="nodes"):
            nodes_of(wrong)


def test_failures_come_in_order() -> None:
    times = Failures(between=100.0, repair=10.0).of("n1")
    some = [next(times) for _ in range(20)]
    assert all(down < back for down, back in some)
    assert all(one[1] < other[0] for one, other in pairwise(some))


def test_a_line_of_a_trace() -> None:
    [line] = swf.lines(["; Version: 2.2", "", LINE], "x")
    arrival = swf.arrival_of(line, cores=32)
    assert arrival is not None
    assert (arrival.at, arrival.owner, arrival.runs[0].seconds) == (10, "user3", 100)
    assert (arrival.spec.nodes, arrival.spec.cpu, arrival.spec.memory) == (2, 32, 32 << 20)
    assert (arrival.spec.time_limit, arrival.spec.project) == (200, "group2")


@pytest.mark.parametrize("text", ["1 2 3", LINE.replace("100", "abc"), LINE.replace("100", "inf")])
def test_a_wrong_line_is_named(text: str) -> None:
    with pytest.raises(OperatorError, match="x:2: "):
        list(swf.lines(["; fine", text], "x"))


def test_what_is_written_can_be_read_again(tmp_path: Path) -> None:
    recorder, measure = swf.Recorder(), Measure()
    demand = Demand(users=4, days=0.5, gpus=0, fails=0.2, seed=2)
    Simulation(Site(nodes_of("3x16:64G")), synthetic(demand), [measure, recorder]).run()
    file = io.StringIO()
    recorder.write(file)
    path = tmp_path / "x.swf"
    path.write_text(file.getvalue())
    again = list(swf.read(path, 16))
    assert len(again) == sum(measure.ended.values()) > 0
    replayed = Measure()
    Simulation(Site(nodes_of("3x16:64G")), again, [replayed]).run()
    assert replayed.ended == measure.ended


def test_histograms_count_everything() -> None:
    assert sum(count for _, count in histogram([0.0, 5.0, 1e9])) == 3
    assert histogram([]) == [(1.0, 0)]


def test_the_command() -> None:
    app = typer.Typer()
    app.command()(simulate)
    app.command()(rehearse)
    arguments = ["simulate", "--synthetic", "users=3,days=0.2", "--nodes", "2x16:64G:4gpu"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "Waiting times" in shown.output
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert found["submitted"] == sum(found["ended"].values())
    assert CliRunner().invoke(app, ["simulate"]).exit_code == 1
