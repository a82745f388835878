"""References, templates, conditions and places: their short forms, round trips, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.model import Condition, JobSpec, Reference
from perijove.model.places import filled, literal, references, templates

names = st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True)
outputs = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,12}", fullmatch=True)
keys = st.text(
    st.characters(exclude_characters="[]", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=9
)
identifiers = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)
found = (
    st.builds(lambda s, o, k: Reference("output", step=s, output=o, key=k), names, outputs, st.none() | keys)
    | identifiers.map(lambda name: Reference("parameter", parameter=name))
    | st.sampled_from([Reference("item"), Reference("index")])
    | keys.map(lambda key: Reference("item", key=key))
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.lists(
    st.sampled_from(["$", "{{", "}}", " ", "a", "${{", "jobs:a/b", "\n"]), max_size=12
).map("".join)
values = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


@given(found)
def test_a_reference_is_read_back_from_its_text(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jobs:",
        "jobs:a",
        "jobs:a/",
        "jobs:a b/c",
        "jobs:a/b[",
        "jobs:a/b[]",
        "jobs:a/b[c]d",
        "jobs:a/b\n",
        "parameters:",
        "parameters:1",
        "item:",
        "index:1",
        "items",
        "prep/table",
        " item",
        "jobs:#1/out",
    ],
)
def test_what_is_no_reference_is_refused_with_what_would_be_one(text: str) -> None:
    with pytest.raises(ValueError, match="must be jobs:STEP/OUTPUT"):
        Reference.parse(text)


@given(found, st.sampled_from(["", "==", "!=", "<", "<=", ">", ">="]), values, st.booleans())
def test_a_condition_is_read_back_from_its_text(
    reference: Reference, operator: Any, value: Any, negated: bool
) -> None:
    condition = Condition(reference, operator, value if operator else None, negated)
    if " " not in str(reference):
        assert Condition.parse(str(condition)) == condition


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("jobs:a/ok", [], False),
        ("jobs:a/ok", "x", True),
        ("not jobs:a/ok", None, True),
        ("jobs:a/loss < 0.1", 0.05, True),
        ("not jobs:a/loss < 0.1", 0.05, False),
        ('parameters:mode == "full"', "full", True),
        ("index >= 3", 3, True),
        ("item:lr != null", None, False),
    ],
)
def test_a_condition_holds_or_not(text: str, value: Any, holds: bool) -> None:
    assert Condition.parse(text).holds(value) is holds


def test_what_cannot_be_compared_says_so() -> None:
    with pytest.raises(TypeError):
        Condition.parse("jobs:a/loss < 0.1").holds("high")


@pytest.mark.parametrize(
    "text", ["", "jobs:a/b <", "jobs:a/b < x", "jobs:a/b = 1", "not", "a and b", "jobs:a/b < 'x'"]
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Condition.parse(text)


@given(texts)
def test_any_text_can_be_written_so_that_it_stays_as_it_is(text: str) -> None:
    assert list(templates(literal(text))) == []
    assert filled(literal(text), lambda reference: pytest.fail(str(reference))) == text


@given(found, found)
def test_templates_are_found_and_filled(one: Reference, other: Reference) -> None:
    text = f"a ${{{{ {one} }}}} b ${{{{{other}}}}}"
    if str(one).strip() == str(one) and str(other).strip() == str(other) and "}}" not in f"{one}{other}":
        assert list(templates(text)) == [one, other]
        assert filled(text, lambda reference: f"<{reference}>") == f"a <{one}> b <{other}>"


def test_a_template_that_is_malformed_names_itself() -> None:
    with pytest.raises(ValueError, match=r"\$\{\{ prep/table \}\} must be jobs:"):
        list(templates("x ${{ prep/table }}"))


@pytest.mark.parametrize("text", ["${{ item", "a ${{ item }", "${{ item }} ${{"])
def test_a_template_that_is_not_closed_is_no_text(text: str) -> None:
    with pytest.raises(ValueError, match="has no }} after it"):
        list(templates(text))
    assert filled(literal(text), str) == text


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ({"from": "jobs:a/b"}, ["jobs:a/b"]),
        ([1, {"x": [{"from": "item"}]}, {"from": "parameters:p"}], ["item", "parameters:p"]),
        ({"value": {"from": "jobs:a/b"}}, []),
        ({"from": "jobs:a/b", "more": 1}, []),
        ({"pickle": "sha256:" + "0" * 64}, []),
        ("${{ jobs:a/b }}", []),
    ],
)
def test_marks_in_arguments_are_found(argument: Any, expected: list[str]) -> None:
    assert [str(one) for one in references(argument)] == expected


@pytest.mark.parametrize(
    "argument", [{"from": 1}, {"from": "x"}, [{"pickle": "abc"}], {"a": {"pickle": None}}]
)
def test_malformed_marks_are_refused(argument: Any) -> None:
    with pytest.raises(ValueError, match=r"must be|takes the digest"):
        list(references(argument))


@pytest.mark.parametrize("place", ["file:a/b", "dir:/x", "glob:*.png", "fd:1", "fd:9", "record:loss"])
def test_places_of_outputs(place: str) -> None:
    assert JobSpec(command=["x"], outputs={"o": place}).outputs == {"o": place}


@pytest.mark.parametrize(
    "place",
    [
        "",
        "x",
        "file:",
        "fd:0",
        "fd:10",
        "fd:x",
        "fd:\u0661",
        "file:../x",
        "dir:a/../b",
        "record:a b",
        "s3:x",
        "file:a\0",
    ],
)
def test_other_places_are_refused(place: str) -> None:
    with pytest.raises(ValueError, match="outputs"):
        JobSpec(command=["x"], outputs={"o": place})


def test_marks_survive_json() -> None:
    argument = [{"from": "jobs:a/b"}, {"value": {"pickle": 1}}]
    assert list(references(json.loads(json.dumps(argument)))) == list(references(argument))
