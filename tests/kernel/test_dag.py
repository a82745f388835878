"""The picture and the tables of a run: pure, so tested on random graphs and on texts that mean harm."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from perijove.dag import Graph, Standing, graph_of, needs_of, standing_of, standings, sum_text
from perijove.dag_layout import layers_of, layout
from perijove.dag_svg import COLOURS, HEIGHT, WIDTH, columns, cut, svg
from perijove.dag_text import MOST_ROWS, rows_of, run_table, run_text
from perijove.model.records import Reason, ReasonCode
from perijove.model.runs import Cause, CauseKind, Run, StepRun, StepState
from perijove.model.states import State
from perijove.model.workflow import Step, Workflow
from perijove.status import COLOURS as OF_JOBS

NOW = 1000.0
SVG = "{http://www.w3.org/2000/svg}"


@st.composite
def graphs(draw: st.DrawFn, most: int = 30) -> dict[str, list[str]]:
    """Steps that need earlier ones only."""
    count = draw(st.integers(1, most))
    names = [f"s{i}" for i in range(count)]
    return {
        name: draw(st.lists(st.sampled_from(names[:i]), max_size=4)) if i else []
        for i, name in enumerate(names)
    }


def corners(picture: str) -> list[tuple[float, float]]:
    return [
        (float(x), float(y))
        for x, y in re.findall(r'<g transform="translate\(([\d.]+),([\d.]+)\)">', picture)
    ]


def boxes(needs: Mapping[str, list[str]]) -> Graph:
    return Graph([Standing(name) for name in needs], dict(needs))


@settings(max_examples=60)
@given(graphs(), st.sampled_from(["right", "down", None]))
def test_no_box_overlaps_another_and_all_are_inside(
    needs: dict[str, list[str]], direction: str | None
) -> None:
    picture = svg(boxes(needs), now=NOW, title="t", direction=direction)  # type: ignore[arg-type]
    placed = corners(picture)
    root = ET.fromstring(picture)
    assert len(placed) == len(needs)
    for i, (x, y) in enumerate(placed):
        assert 0 <= x <= float(root.attrib["width"]) - WIDTH
        assert 0 <= y <= float(root.attrib["height"]) - HEIGHT
        assert all(abs(x - other) >= WIDTH or abs(y - beside) >= HEIGHT for other, beside in placed[:i])


@settings(max_examples=60)
@given(graphs())
def test_edges_lead_on_from_layer_to_layer(needs: dict[str, list[str]]) -> None:
    placed = layout(needs)
    assert set(placed.edges) == {(source, name) for name, others in needs.items() for source in others}
    for (source, name), way in placed.edges.items():
        assert way[0] == placed.boxes[source]
        assert way[-1] == placed.boxes[name]
        assert all(after[0] == before[0] + 1 for before, after in pairwise(way))
    for layer, at in placed.boxes.values():
        passing = [way for way in placed.edges.values() for bend in way[1:-1] if bend[0] == layer]
        assert all(abs(way[1][1] - at) > 0.4 for way in passing if len(way) == 3 and way[1][0] == layer)


def test_a_layer_is_the_longest_way_to_it() -> None:
    needs = {"a": [], "b": ["a"], "c": ["a", "b"], "late": [], "d": ["c", "late"]}
    assert layers_of(needs) == {"a": 0, "b": 1, "c": 2, "late": 2, "d": 3}
    with pytest.raises(ValueError, match="cycle"):
        layers_of({"a": ["b"], "b": ["a"]})


def test_what_can_be_drawn_without_crossings_is() -> None:
    needs = {"a": [], "b": [], "c": [], "x": ["c"], "y": ["b"], "z": ["a"]}
    at = {name: place for name, (_, place) in layout(needs).boxes.items()}
    assert (at["x"], at["y"], at["z"]) == pytest.approx((at["c"], at["b"], at["a"]))


HOSTILE = st.text(st.characters(codec=None), max_size=60) | st.sampled_from(
    [
        "</text><script>alert(1)</script>",
        '"><img src=x>',
        "]]>&amp;",
        "\ud800\x00\ufffe",
        "{{7*7}}",
        "\u202e" * 9,
    ]
)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_a_text_that_means_harm_stays_text(name: str, title: str, said: str) -> None:
    box = Standing(name, title=title, kind=said, said=said, progress_text=name, progress=0.5)
    picture = svg(Graph([box], {name: []}), now=NOW, title=title, links=lambda _: f"job/{said}")
    root = ET.fromstring(picture)
    assert {one.tag.removeprefix(SVG) for one in root.iter()} <= {
        "svg", "title", "desc", "style", "g", "path", "rect", "text", "a",
    }  # fmt: skip
    attributes = {attribute for one in root.iter() for attribute in one.attrib}
    assert not [attribute for attribute in attributes if attribute.startswith("on")]
    picture.encode()


def test_a_picture_says_to_those_who_do_not_see_it() -> None:
    one, other = Standing("prep", states={StepState.SUCCEEDED: 1}), Standing("fit", kind="notebook")
    graph = Graph([one, other], {"prep": [], "fit": ["prep"]})
    root = ET.fromstring(svg(graph, now=NOW, title="run 12"))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "run 12: 2 boxes. 1 succeeded, 1 waiting."
    assert root.findtext(f"{SVG}title") == "run 12"
    linked = ET.fromstring(svg(graph, now=NOW, title="run 12", links=lambda box: f"job/{box.name}"))
    assert linked.attrib["role"] == "group", "an image hides its links from screen readers"
    assert [a.attrib["href"] for a in linked.iter(f"{SVG}a")] == ["job/prep", "job/fit"]
    assert [a.attrib["aria-label"] for a in linked.iter(f"{SVG}a")] == [
        "prep: succeeded",
        "fit (notebook): waiting",
    ]


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_each_state_has_a_word_that_can_be_read_on_its_colour() -> None:
    for state in StepState:
        assert 1.05 / (luminance(COLOURS[state]) + 0.05) >= 4.5, state
        picture = svg(Graph([Standing("s", states={state: 1})], {"s": []}), now=NOW, title="t")
        assert f">{state}</text>" in picture
    assert all(COLOURS[StepState(state)] == colour for state, colour in OF_JOBS.items())


def test_ten_thousand_instances_are_one_box_with_a_bar() -> None:
    step = Step(command=["true"], map=list(range(10_000)))
    runs = [
        StepRun(
            step="fit", index=i, state=StepState.SUCCEEDED if i < 2500 else StepState.RUNNING, started=900.0
        )
        for i in range(10_000)
    ]
    whole = standing_of("fit", step, runs)
    assert (whole.state, whole.done, whole.total, whole.progress) == (StepState.RUNNING, 2500, 10_000, 0.25)
    picture = svg(Graph([whole], {"fit": []}), now=NOW, title="t")
    assert len(corners(picture)) == 1
    assert ">2,500 of 10,000</text>" in picture
    assert "2,500 succeeded, 7,500 running. 1m40s</title>" in picture
    assert len(picture) < 6000
    widths = [float(width) for width in re.findall(r'y="50" width="([\d.]+)"', picture)]
    assert widths == [46.0, 138.0]


@pytest.mark.parametrize("most", [1, 7, 60])
@settings(max_examples=25)
@given(needs=graphs(most=80))
def test_a_large_graph_is_drawn_in_few_boxes_and_none_of_its_steps_is_lost(
    most: int, needs: dict[str, list[str]]
) -> None:
    shown = [Standing(name) for name in needs]
    graph = graph_of(shown, needs, most)
    assert len(graph.boxes) <= most
    assert sum(box.total for box in graph.boxes) == len(needs)
    assert bool(graph.note) == (len(graph.boxes) < len(needs))
    layout(graph.needs)


def test_steps_that_are_alike_share_a_box_first() -> None:
    needs: dict[str, list[str]] = {"split": []}
    needs |= {f"align{i}": ["split"] for i in range(300)}
    needs |= {f"sort{i}": [f"align{i}"] for i in range(300)}
    needs["join"] = [f"sort{i}" for i in range(300)]
    graph = graph_of([Standing(name) for name in needs], needs)
    assert [(box.label, box.total) for box in graph.boxes] == [
        ("split", 1), ("align*", 300), ("sort*", 300), ("join", 1),
    ]  # fmt: skip
    assert list(graph.needs.values()) == [[], ["split"], ["align0"], ["sort0"]]
    assert "602 steps in 4 boxes" in svg(graph, now=NOW, title="t")


def test_a_chain_of_thousands_is_drawn_in_pieces() -> None:
    needs = {f"s{i}": [f"s{i - 1}"] if i else [] for i in range(5000)}
    graph = graph_of([Standing(name) for name in needs], needs)
    assert len(graph.boxes) <= 120
    assert {len(others) for others in graph.needs.values()} == {0, 1}


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ("succeeded failed running", "running"),
        ("succeeded waiting", "running"),
        ("succeeded pending", "running"),
        ("pending waiting", "pending"),
        ("held succeeded", "held"),
        ("succeeded failed", "failed"),
        ("cached succeeded", "succeeded"),
        ("cached", "cached"),
        ("skipped", "skipped"),
        ("rejected succeeded", "rejected"),
        ("", "waiting"),
    ],
)
def test_how_many_stand_together(states: str, state: str) -> None:
    assert Standing("s", states=Counter(map(StepState, states.split()))).state == state


def workflow() -> Workflow:
    return Workflow.model_validate(
        {
            "name": "digits",
            "steps": {
                "prep": {"command": ["true"], "outputs": ["table"]},
                "fit": {"notebook": "fit.ipynb", "map": [1, 2, 3], "inputs": {"t": "jobs:prep/table"}},
                "report": {"script": "true", "after": ["fit"]},
            },
        }
    )


def steps() -> list[StepRun]:
    failed = Reason(code=ReasonCode.NON_ZERO_EXIT, message="exit code 3 [bold]\x1b[31m</b>")
    changed = Cause(kind=CauseKind.PARAMETER, name="lr", message="parameter lr is 0.1 and was 0.2")
    return [
        StepRun(step="prep", state=StepState.CACHED, cached_from=7),
        StepRun(step="fit", index=0, state=StepState.FAILED, reason=failed, started=990, ended=995),
        StepRun(step="fit", index=1, state=StepState.RUNNING, started=990, causes=[changed], progress=0.5),
        StepRun(step="fit", index=2, state=StepState.PENDING),
    ]


def run(**fields: object) -> Run:
    given = {"id": 12, "owner": "ada", "name": "digits", "state": State.RUNNING, "submitted": 940.0}
    return Run.model_validate(
        {**given, "workflow": workflow(), "steps": Counter(s.state for s in steps()), **fields}
    )


def test_a_run_as_plain_text() -> None:
    lines = run_text(run(), steps(), NOW, width=120).splitlines()
    assert lines[0] == 'run 12 "digits" running for 1m00s: 1 cached, 1 failed, 1 running, 1 pending'
    assert [" ".join(line.split()) for line in lines[1:3]] == [
        "\u21ba prep cached result of run 7 taken",
        "\u25b8 fit running, 1 failed 1 of 3 10s exit code 3 [bold]\ufffd[31m</b>",
    ]
    assert "exit code 3" in lines[3]
    assert "parameter lr is 0.1 and was 0.2" in lines[4]
    assert lines[-1] == "\u00b7 report    waiting"


@pytest.mark.parametrize("width", [40, 80, 140])
def test_a_terminal_gets_colours_only_when_it_can_show_them(width: int) -> None:
    def printed(**console: object) -> str:
        terminal = Console(width=width, record=True, force_terminal=True, **console)  # type: ignore[arg-type]
        with terminal.capture() as shown:
            terminal.print(run_table(run(), steps(), NOW))
        return shown.get()

    assert "\x1b[31m" in printed(color_system="standard")
    plain = printed(color_system=None)
    assert "\x1b[3" not in plain
    assert all(len(line) <= width for line in plain.splitlines())
    assert "failed" in plain


def test_thousands_of_steps_are_cut_in_a_table() -> None:
    many = Workflow.model_validate({"steps": {f"s{i}": {"command": ["true"]} for i in range(500)}})
    text = run_text(run(workflow=many), [], NOW)
    assert text.endswith("... and 300 more")
    assert len(rows_of(many, [])) == 500
    assert len(text.splitlines()) == MOST_ROWS + 2


@given(HOSTILE, st.integers(2, 40))
def test_a_cut_text_is_no_wider_and_of_one_line(text: str, most: int) -> None:
    shown = cut(text, most)
    assert columns(shown) <= most
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", shown)


def test_a_step_that_nothing_is_known_of_waits() -> None:
    found = standings(workflow(), [])
    assert [box.state for box in found] == [StepState.WAITING] * 3
    assert needs_of(workflow()) == {"prep": [], "fit": ["prep"], "report": ["fit"]}
    assert sum_text({}) == ""
