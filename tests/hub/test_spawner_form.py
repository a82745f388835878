"""The options form: what a hostile site or user writes stays text."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.model import Endpoint, Job, JobSpec, Reason, ReasonCode, State
from perijove_spawners.hub.server_options import ServerOptions, form_html, launcher_of
from perijove_spawners.hub.spawner import address_of, ending, progress_of

SITE: dict[str, Any] = {
    "default_launcher": "docker",
    "containers": True,
    "default_image": "nb:1",
    "images": ["nb:1", 'x"><script>alert(1)</script>'],
    "descriptions": {"nb:1": "Notebooks <b>& more</b>"},
    "largest": {"cpu": 4.0, "memory": 8 << 30, "gpus": 2},
    "free": {"cpu": 2.5, "memory": 3 << 30, "gpus": 1},
}
DEFAULTS = ServerOptions(cpus=1, memory=1 << 30)


def job(state: State, **changes: Any) -> Job:
    fields = {"id": 7, "owner": "ada", "name": "server", "submitted": 1.0, "node": "n1"}
    return Job(**{**fields, "state": state, "spec": JobSpec(command=["true"]), **changes})


def test_the_form_shows_what_is_free_and_escapes_names() -> None:
    form = form_html(SITE, DEFAULTS, containers=True)
    assert "<script>" not in form
    assert "2.5 free now" in form
    assert "3G free now" in form
    assert '<option value="nb:1" selected>nb:1 - Notebooks &lt;b&gt;&amp; more&lt;/b&gt;</option>' in form
    assert 'name="gpus"' in form


def test_processes_have_no_images_and_sites_without_gpus_no_field_for_them() -> None:
    form = form_html(
        {**SITE, "largest": {"cpu": 2, "memory": 1 << 30, "gpus": 0}}, DEFAULTS, containers=False
    )
    assert 'name="image"' not in form
    assert 'name="gpus"' not in form


def test_a_site_without_any_node_still_has_a_form() -> None:
    assert 'name="cpus"' in form_html({}, DEFAULTS, containers=True)


FORMS = st.dictionaries(
    st.sampled_from([*ServerOptions.model_fields, "evil"]), st.lists(st.text(), max_size=2)
)


@given(FORMS)
def test_any_form_gives_options_or_an_error_that_names_the_field(form: dict[str, list[str]]) -> None:
    options, words = parsed(lambda: ServerOptions.from_form(form))
    if options is None:
        assert re.split("[:.]", words)[0] in ServerOptions.model_fields
        assert "given: " in words
    else:
        assert set(options.given()) <= set(form)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_whatever_is_sent_as_options_is_parsed_or_refused_in_words(value: Any) -> None:
    for sent in (value, {"cpus": value}, {"memory": value}, {"gpus": value}, {"image": value}):
        options, words = parsed(partial(ServerOptions.parse, sent))
        assert options is not None or "given: " in words


def parsed(parse: Callable[[], ServerOptions]) -> tuple[ServerOptions | None, str]:
    """What it made, or the words of its refusal."""
    try:
        return parse(), ""
    except ValueError as error:
        return None, str(error)


def test_what_was_chosen_takes_the_place_of_the_defaults() -> None:
    chosen = ServerOptions.parse({"memory": "4G", "image": "nb:2"})
    assert DEFAULTS.merged(chosen).spec_fields(containers=True) == {
        "cpu": 1,
        "memory": 4 << 30,
        "image": "nb:2",
    }
    assert "image" not in DEFAULTS.merged(chosen).spec_fields(containers=False)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("", ("docker", True)), ("docker", ("docker", True)), ("process", ("process", False))],
)
def test_the_launcher_of_servers(wanted: str, expected: tuple[str, bool]) -> None:
    assert launcher_of(SITE, wanted) == expected


@pytest.mark.parametrize(
    ("address", "expected"), [("10.0.0.2:8888", ("10.0.0.2", 8888)), ("[fd00::1]:80", ("fd00::1", 80))]
)
def test_where_a_server_listens(address: str, expected: tuple[str, int]) -> None:
    assert address_of(Endpoint(ports={8888: address})) == expected


def test_progress_in_words() -> None:
    waiting = Reason(code=ReasonCode.RESOURCES, message="waits for 2 GPUs", position=3)
    assert progress_of(job(State.PENDING, reason=waiting)) == (
        10,
        "Job 7 waits, place 3 in the queue: waits for 2 GPUs",
    )
    pulling = Reason(code=ReasonCode.LAUNCHING, message="fetching the image")
    assert progress_of(job(State.STARTING, reason=pulling)) == (50, "Job 7 starts on n1: fetching the image")
    assert progress_of(job(State.HELD))[0] == 10
    assert progress_of(job(State.RUNNING))[0] == 80
    assert progress_of(job(State.FAILED, exit_code=2)) == (100, "Job 7 ended: failed, exit code 2")


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_words(state: State) -> None:
    percent, message = progress_of(job(state))
    assert 0 <= percent <= 100
    assert "Job 7" in message
    assert str(state) in ending(job(state))
