"""Random graphs, ended in any order, come to what a walk in topological order says."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perijove.model import InvalidSpecError, Step, StepState, Workflow
from perijove_hub.workflows.graph import Graph
from perijove_hub.workflows.progress import Progress

GOOD, BAD, SKIPPED, REJECTED = StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED, StepState.REJECTED


@dataclass
class Plan:
    """What each step of a random graph will do."""

    needs: list[list[int]]
    fate: list[str] = field(default_factory=list)
    """``skip``, ``broken`` (its list cannot be had), or an instance's letter each: good, bad, passed over."""


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 12))
    needs = [
        draw(st.lists(st.sampled_from(range(i)), unique=True, max_size=3)) if i else [] for i in range(count)
    ]
    fate = st.one_of(st.sampled_from(["skip", "broken", "g", "g", "g", "b"]), st.text("gggbp", max_size=4))
    return Plan(needs, [draw(fate) for _ in range(count)])


def graph_of(plan: Plan) -> Graph:
    return Graph.made(
        {
            f"s{i}": Step(command=["true"], after=[f"s{n}" for n in needs])
            for i, needs in enumerate(plan.needs)
        }
    )


def expected(plan: Plan) -> list[str]:
    """One step after the other, in the order of the document, which is a topological one."""
    found: list[str] = []
    for i, fate in enumerate(plan.fate):
        before = [found[n] for n in plan.needs[i]]
        if any(one in {"bad", "rejected"} for one in before):
            found.append("rejected")
        elif "skipped" in before or fate == "skip":
            found.append("skipped")
        else:
            found.append("bad" if fate == "broken" or "b" in fate else "good")
    return found


def act(plan: Plan, progress: Progress, order: random.Random) -> None:
    """Open what is due and end instances, in a random order."""
    running: list[tuple[int, str]] = []
    opened: set[int] = set()
    while progress.due or running:
        if progress.due and (not running or order.random() < 0.5):
            step = progress.due.pop(order.randrange(len(progress.due)))
            assert step not in opened
            opened.add(step)
            fate = plan.fate[step]
            if fate == "skip":
                progress.settle(step, SKIPPED)
            elif fate == "broken":
                progress.settle(step, BAD)
            else:
                progress.open(step, len(fate))
                running += [(step, letter) for letter in fate]
        else:
            step, letter = running.pop(order.randrange(len(running)))
            progress.end(step, {"g": GOOD, "b": BAD, "p": SKIPPED}[letter])


def outcome(progress: Progress) -> list[str]:
    words = {SKIPPED: "skipped", REJECTED: "rejected", BAD: "bad"}
    return [
        words[whole] if (whole := progress.whole[i]) is not None else "bad" if progress.bad[i] else "good"
        for i in range(len(progress.graph))
    ]


@settings(max_examples=400, deadline=None)
@given(plans(), st.randoms(use_true_random=False))
def test_whatever_ends_first_the_outcome_is_that_of_a_topological_walk(
    plan: Plan, order: random.Random
) -> None:
    progress = Progress(graph_of(plan))
    act(plan, progress, order)
    assert progress.finished
    assert outcome(progress) == expected(plan)
    settled = [one.step for one in progress.settled]
    assert len(settled) == len(set(settled)) == sum(whole is not None for whole in progress.whole)


@settings(max_examples=100, deadline=None)
@given(plans(), st.randoms(use_true_random=False), st.integers(0, 10))
def test_a_stopped_run_comes_to_an_end_and_opens_nothing_more(
    plan: Plan, order: random.Random, after: int
) -> None:
    progress = Progress(graph_of(plan))
    running: list[int] = []
    for _ in range(after):
        if not progress.due:
            break
        step = progress.due.pop()
        progress.open(step, 1)
        running.append(step)
    progress.stop()
    assert not progress.due
    for step in running:
        progress.end(step, StepState.KILLED)
    assert progress.finished
    assert not progress.due


@given(plans())
def test_a_failure_names_the_step_that_failed(plan: Plan) -> None:
    progress = Progress(graph_of(plan))
    act(plan, progress, random.Random(0))
    for one in progress.settled:
        if one.state is REJECTED:
            assert one.because is not None
            assert outcome(progress)[one.because] == "bad"


def test_what_depends_on_a_failure_is_rejected_and_the_rest_killed_when_it_stops_the_run() -> None:
    graph = graph_of(Plan([[], [], [0], [1]]))
    progress = Progress(graph)
    progress.due.clear()
    progress.open(0, 1)
    progress.open(1, 1)
    progress.end(0, BAD)
    progress.stop(0)
    assert [(one.step, one.state) for one in progress.settled] == [(2, REJECTED), (3, StepState.KILLED)]
    progress.end(1, GOOD)
    assert progress.finished


def test_a_cycle_is_named() -> None:
    steps = {
        name: Step(command=["x"], after=[before]) for name, before in (("a", "b"), ("b", "c"), ("c", "a"))
    }
    with pytest.raises(InvalidSpecError, match="a -> b -> c -> a"):
        Graph.made(steps)


def test_the_order_is_that_of_the_document_where_it_may_be() -> None:
    workflow = Workflow(
        steps={n: Step(command=["x"], after=a) for n, a in (("c", ["b"]), ("a", []), ("b", []))}
    )
    graph = Graph.of(workflow)
    assert [graph.names[i] for i in graph.order] == ["a", "b", "c"]
    assert len(graph) == 3
