"""Environments: which image or node a runenv and what it requires come to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.model import FieldError
from perijove_hub.policy.images import Convention
from perijove_hub.policy.runenvs import (
    Conventional,
    Match,
    Named,
    Offer,
    Unsatisfied,
    Wish,
    choose,
    newest_first,
    order,
    parse_named,
)
from perijove_hub.settings import Settings

from .conftest import SimulatedNode, node, running
from .test_admission import ada, refused


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("COBOL-42", "COBOL", "42"),
        ("COBOL", "COBOL", None),
        ("python3-42", "python3", "42"),
        ("ABAQUS-v2021.05", "ABAQUS", "v2021.05"),
        ("deep-learning", "deep-learning", None),
        ("deep-learning-3", "deep-learning", "3"),
    ],
)
def test_names_and_versions(text: str, name: str, version: str | None) -> None:
    assert parse_named(text) == Named(name, version)
    assert str(parse_named(text)) == text


@pytest.mark.parametrize("text", ["", "a b", "-1", "../x", "a\n", "a" * 70])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be NAME"):
        parse_named(text)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [("9", "10"), ("42", "42.1"), ("2020", "v2021.05"), ("1.9.2", "1.10"), ("1.a", "1.b"), ("1.rc", "1.0")],
)
def test_versions_are_numbers_not_texts(earlier: str, later: str) -> None:
    assert order(earlier) < order(later)


def test_v_means_nothing() -> None:
    assert order("v42") == order("42") == order("042")


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=3), min_size=1, max_size=5))
def test_the_newest_come_first(numbers: list[list[int]]) -> None:
    versions = [".".join(map(str, one)) for one in numbers]
    found = [parse_named(name).version or "" for name in newest_first(f"X-{one}" for one in versions)]
    assert [order(one) for one in found] == sorted(map(order, versions), reverse=True)


def offer(text: str, *features: str, image: str = "") -> Offer:
    return Offer(parse_named(text), tuple(map(parse_named, features)), image or text.lower())


OFFERS = [
    offer("COBOL-42", "NX-2019", "NX-2020", image="a"),
    offer("COBOL-42", image="plain"),
    offer("COBOL-43", "NX-2021", "EXCEL-97", image="b"),
    offer("PYTHON-3.9", "NX-2022", image="c"),
    offer("PYTHON-3.10", image="d"),
]


@pytest.mark.parametrize(
    ("runenv", "require", "image", "feature"),
    [
        ("COBOL-42", [], "plain", None),
        ("cobol-42", [], "plain", None),
        ("COBOL-41", [], "plain", None),  # a later one will do, the nearest
        ("COBOL-43", [], "b", None),
        ("COBOL", [], "b", None),  # any: the newest
        ("PYTHON", [], "d", None),
        ("COBOL-42", ["NX-2019"], "a", "NX-2019"),
        ("COBOL-42", ["NX"], "a", "NX-2020"),  # the newest of the nearest runenv
        ("COBOL-42", ["NX-2021"], "b", "NX-2021"),
        ("COBOL-42", ["EXCEL-2020", "EXCEL-97", "NX"], "b", "EXCEL-97"),  # the first that can be had
        ("COBOL", ["NX"], "b", "NX-2021"),
        (None, ["NX"], "c", "NX-2022"),
        (None, ["NX-2020"], "a", "NX-2020"),
    ],
)
def test_the_catalogue(runenv: str | None, require: list[str], image: str, feature: str | None) -> None:
    wish = Wish(parse_named(runenv) if runenv else None, tuple(map(parse_named, require)))
    found = choose(wish, OFFERS)
    assert isinstance(found, Match)
    assert found.offer.image == image
    assert (str(found.feature) if found.feature else None) == feature


@pytest.mark.parametrize(
    ("runenv", "require", "field", "said"),
    [
        ("COBOL-44", [], "runenv", "no version of COBOL will do; there are: COBOL-43, COBOL-42"),
        ("ADA", [], "runenv", "it is not there; there are: COBOL-43, COBOL-42, PYTHON-3.10, PYTHON-3.9"),
        ("COBOL-43", ["NX-2020", "WORD"], "require", "with COBOL-43; there are: EXCEL-97, NX-2021"),
    ],
)
def test_what_cannot_be_had_is_told_with_what_can(
    runenv: str, require: list[str], field: str, said: str
) -> None:
    found = choose(Wish(parse_named(runenv), tuple(map(parse_named, require))), OFFERS)
    assert isinstance(found, Unsatisfied)
    assert found.field == field
    assert said in found.message


CONVENTION = Convention(prefix="pseven-calc-", registry="r.example/calc", tag="1")


def test_the_golden_names_of_the_convention() -> None:
    plain = Convention(prefix="pseven-calc-")
    cobol, nx = Named("COBOL", "42"), Named("NX", "2020")
    assert plain.image_of(cobol, nx) == "pseven-calc-cobol-42-nx-2020:latest"
    assert plain.image_of(Named("python3", "42"), None) == "pseven-calc-python3-42:latest"
    assert CONVENTION.image_of(cobol, nx) == "r.example/calc/pseven-calc-cobol-42-nx-2020:1"


def test_the_convention_is_exact_and_prefers_what_is_there() -> None:
    have = {"r.example/calc/pseven-calc-ada-1-nx-2019:1"}
    spelled = Conventional(CONVENTION.image_of, have.__contains__)
    wish = Wish(Named("ADA", "1"), (Named("NX", "2020"), Named("NX"), Named("NX", "2019")))
    found = choose(wish, OFFERS, spelled)
    assert isinstance(found, Match)
    assert found.offer.image in have
    found = choose(wish, OFFERS, Conventional(CONVENTION.image_of))
    assert isinstance(found, Match)
    assert found.offer.image == "r.example/calc/pseven-calc-ada-1-nx-2020:1"
    assert isinstance(choose(Wish(Named("ADA")), OFFERS, spelled), Unsatisfied)
    # what the catalogue has comes before what may be there
    found = choose(Wish(Named("COBOL", "42")), OFFERS, spelled)
    assert isinstance(found, Match)
    assert found.offer.image == "plain"


# ---- jobs

POLICY = """
images:
  cobol: {image: "r.example/cobol:42", runenv: COBOL-42, features: {NX: 2020}}
  hers: {image: "r.example/hers:1", runenv: ADA-1, users: [eve]}
images_by_convention: {prefix: calc-, registry: r.example/c, users: [ada], pull: always}
"""
LABELS = {"runenv.COBOL": "42", "feature.NX": "2020", "os": "windows"}


def wrong(spec: dict[str, Any], *nodes: Any, **more: Any) -> FieldError:
    (error,) = refused(spec, *nodes, policy=more.pop("policy", POLICY), **more)
    return error


def test_a_runenv_becomes_an_image() -> None:
    docker = {"launcher": "docker"}
    spec = ada({**docker, "runenv": "COBOL-40", "require": ["NX"]}, policy=POLICY).spec
    assert spec.image == "r.example/cobol:42"
    assert ada(spec.model_dump(mode="json", exclude_unset=True), policy=POLICY).spec.image == spec.image
    assert ada({**docker, "runenv": "ADA-1"}, policy=POLICY).spec.image == "r.example/c/calc-ada-1:latest"
    error = wrong({**docker, "runenv": "ADA"})
    assert (error.field, error.value) == ("runenv", "ADA")
    assert "COBOL-42" in error.message
    assert "ADA-1" not in error.message  # another's
    error = wrong({**docker, "runenv": "COBOL-42", "image": "python"})
    assert (error.field, error.message.partition(";")[0]) == (
        "image",
        "an image or a runenv says what it runs in, not both",
    )
    assert wrong({**docker, "require": ["x y"]}).field == "require"


def test_without_images_a_runenv_becomes_labels_of_nodes() -> None:
    nodes = (node("n1", labels=LABELS), node("n2", labels={"runenv.COBOL": "43"}), node("n3"))
    spec = ada({"runenv": "COBOL-41", "require": ["NX-2021", "NX"]}, *nodes).spec
    assert spec.constraints == {"runenv.COBOL": "42", "feature.NX": "2020"}
    assert ada({"runenv": "COBOL-43"}, *nodes).spec.constraints == {"runenv.COBOL": "43"}
    pinned = {"runenv": "COBOL-41", "constraints": {"runenv.COBOL": "43"}}
    assert ada(pinned, *nodes).spec.constraints == {"runenv.COBOL": "43"}
    assert (
        "no version of COBOL will do; there are: COBOL-43, COBOL-42"
        in wrong({"runenv": "COBOL-44"}, *nodes).message
    )
    assert wrong({"runenv": "COBOL-42"}).message == "it is not there; there are: none"


async def test_environments_are_listed(settings: Settings) -> None:
    nodes = [SimulatedNode(node("n1", labels=LABELS))]
    async with running(settings, nodes) as service:
        headers = {"Content-Type": "text/yaml"}
        assert (await service.http.put("/policy", content=POLICY, headers=headers)).status_code == 200
        assert (await service.http.get("/runenvs")).json() == [
            {
                "os": "linux",
                "node": None,
                "runenv": ["COBOL", "42"],
                "features": [["NX", "2020"]],
                "image": "cobol",
            },
            {
                "os": "windows",
                "node": "n1",
                "runenv": ["COBOL", "42"],
                "features": [["NX", "2020"]],
                "image": None,
            },
        ]
