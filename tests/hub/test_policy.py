"""The policy document: what it says, what it refuses, and that all of it is on its page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from lines import waiting
from pydantic import BaseModel

from perijove.model import FieldError, InvalidSpecError, JobSpec
from perijove_hub.policy import document, registry
from perijove_hub.policy.document import Policy, load
from perijove_hub.policy.times import time_limit_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operate/policy.md").read_text()

POLICY = load("""
default_user: {default_project: null}
users:
  alice: {default_project: moon}
projects:
  sun: {members: [alice, bob, "@astro"], leads: [bob, "@chiefs"], default_time: 2h, max_time: 5h}
  moon: {members: ["a*"]}
partitions:
  gpu: {users: ["@astro", carol], max_time: 1h}
  ours: {users: [], projects: [sun], default_time: 30m}
  either: {users: [dave], projects: [moon]}
  all: {default: true}
reservations:
  course:
    {nodes: ["n*"], start: 2026-01-01T08:00:00, end: 2026-01-02T08:00:00+01:00, users: [dave],
     projects: [sun]}
max_time: 3h
""")


def errors(text: str) -> list[FieldError]:
    with pytest.raises(InvalidSpecError) as caught:
        load(text)
    return list(caught.value.errors)


# Reading


def test_the_empty_document_is_a_policy() -> None:
    assert load("") == Policy()


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("[1, 2", "", "not YAML: "),
        ("- a", "", "must be an object of names and values"),
        ("schedular: fifo", "schedular", "did you mean 'scheduler'?"),
        (
            "scheduler: lottery",
            "scheduler",
            "no such scheduler; there are: fairshare, fairshare-godocker, fifo",
        ),
        ("users: {a: {priority: 101}}", "users.a.priority", "must be at most 100"),
        ("users: {a: {limits: {cpus: -1}}}", "users.a.limits.cpus", "must be at least 0"),
        ("users: {a: {limits: {memory: much}}}", "users.a.limits.memory", "must be a size such as 512M"),
        ("fairshare: {half_life: 0}", "fairshare.half_life", "must be longer than 0 s"),
        ("fairshare: {weights: {gpu: .inf}}", "fairshare.weights.gpu", "finite"),
        ("users: {a: {default_project: sun}}", "users.a.default_project", "no such project; there are: none"),
        ("partitions: {p: {projects: [sun]}}", "partitions.p.projects", "no such project; there are: none"),
        ("projects: {'a b': {}}", "projects.a b", "must consist of letters"),
        ("partitions: {a: {default: true}, b: {default: true}}", "", "only one partition can be the default"),
        (
            "reservations: {r: {nodes: [], start: 2026-01-02, end: 2026-01-01}}",
            "reservations.r",
            "must end after it starts",
        ),
        ("updatable: {priority: [boss]}", "updatable.priority.0", "must be one of owner, lead, admin"),
        (
            "fairshare: {halflife: 1d}",
            "fairshare.halflife",
            "unknown field 'halflife'; did you mean 'half_life'?",
        ),
        ("users: {a: {limits: {cpu: 1}}}", "users.a.limits.cpu", "did you mean 'cpus'?"),
        ("users: [a]", "users", "must be an object of names and values"),
        ("[]", "", "must be an object of names and values"),
        (
            "reservations: {r: {nodes: [], start: soon, end: 2026-01-01}}",
            "reservations.r.start",
            "must be a date",
        ),
        ("window: 2026-13-45", "", "month must be in 1..12"),
        ("window: !!bool maybe", "", "cannot be read"),
        ("window: !!timestamp x", "", "cannot be read"),
        ("window: !!int ''", "", "cannot be read"),
        ("window: " + "1" * 5000, "", "cannot be read"),
        ("window: \ud800", "", "cannot be read"),
        ("window: &a [*a]", "window", "must be"),
        ("[" * 100_000, "", "more than 32 levels"),
        ("- " * 100_000, "", "more than 32 levels"),
        ("{" * 33, "", "more than 32 levels"),
        ("a: [", "", "not YAML"),
    ],
)
def test_what_is_wrong_is_named(text: str, field: str, message: str) -> None:
    (error,) = errors(text)
    assert error.field == field
    assert message in error.message


def test_all_that_is_wrong_is_named_at_once() -> None:
    assert (
        len(errors("scheduler: lottery\nusers: {a: {default_project: x}}\npartitions: {p: {projects: [y]}}"))
        == 3
    )


def test_a_date_without_a_zone_is_utc() -> None:
    kept = POLICY.reservations["course"]
    assert kept.start.isoformat() == "2026-01-01T08:00:00+00:00"
    assert (kept.end - kept.start).total_seconds() == 23 * 3600


# Who


def test_members_are_names_patterns_and_system_groups() -> None:
    assert POLICY.projects_of("alice") == ["sun", "moon"]
    assert POLICY.projects_of("erna") == []
    assert POLICY.projects_of("erna", frozenset({"astro"})) == ["sun"]
    assert POLICY.leads("bob") == {"sun"}
    assert POLICY.leads("erna", frozenset({"chiefs"})) == {"sun"}


def test_jobs_that_name_no_project_are_in_the_users_default_one() -> None:
    assert POLICY.project_of("alice") == "moon", "as the policy says"
    assert POLICY.project_of("bob") == "sun", "else the first"
    assert POLICY.project_of("erna") is None
    gone = load("users: {x: {default_project: sun}}\nprojects: {sun: {}, moon: {members: [x]}}")
    assert gone.project_of("x") == "moon", "not one they are no member of"


@pytest.mark.parametrize(
    ("partition", "user", "project", "groups", "allowed"),
    [
        ("all", "anybody", None, (), True),
        ("gpu", "carol", None, (), True),
        ("gpu", "alice", "sun", (), False),
        ("gpu", "erna", None, ("astro",), True),
        ("ours", "alice", "sun", (), True),
        ("ours", "alice", None, (), False),
        ("either", "dave", None, (), True),
        ("either", "erna", "moon", (), True),
        ("either", "erna", "sun", (), False),
    ],
)
def test_who_may_use_a_partition(
    partition: str, user: str, project: str | None, groups: tuple[str, ...], allowed: bool
) -> None:
    assert POLICY.may_use(partition, user, project, frozenset(groups)) is allowed


def test_who_may_run_inside_a_reservation() -> None:
    assert POLICY.may_enter("course", "dave", None)
    assert POLICY.may_enter("course", "alice", "sun")
    assert not POLICY.may_enter("course", "alice", "moon")
    nobody = load("reservations: {r: {nodes: [n1], start: 2026-01-01, end: 2026-01-02}}")
    assert not nobody.may_enter("r", "dave", None)


# How long


def limit(asked: str | None, project: str | None = None, partition: str | None = None, **more: Any) -> Any:
    spec = JobSpec.model_validate({"command": ["true"], "time_limit": asked, "project": project})
    return time_limit_of(spec, POLICY, partition, **more)


def test_what_is_asked_for_is_given_up_to_the_least_maximum() -> None:
    assert limit("3h") == (10800.0, None)
    assert limit("4h", "sun") == (None, FieldError("time_limit", "4h00m", "at most 3h00m here"))
    assert limit("2h", "sun", "gpu") == (
        None,
        FieldError("time_limit", "2h00m", "at most 1h00m in partition gpu"),
    )
    assert limit("2h", longest=3600.0)[1] == FieldError("time_limit", "2h00m", "at most 1h00m here")


def test_the_default_is_the_nearest_and_never_over_a_maximum() -> None:
    assert limit(None, "sun") == (7200.0, None)
    assert limit(None, "sun", "ours") == (1800.0, None)
    assert limit(None, "sun", "gpu") == (3600.0, None)
    assert limit(None) == (10800.0, None), "without a default, the maximum"
    spec = JobSpec(command=["true"])
    assert time_limit_of(spec, Policy()) == (None, None)


def test_a_notebook_server_has_no_default() -> None:
    spec = JobSpec.model_validate({"command": ["true"], "kind": "server", "project": "sun"})
    assert time_limit_of(spec, POLICY, "ours") == (10800.0, None)


# The page


def parts(model: type[BaseModel], seen: dict[str, type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """All parts of the document, by class name."""
    if model.__name__ not in seen:
        seen[model.__name__] = model
        for field in model.model_fields.values():
            for one in leaves(field.annotation):
                parts(one, seen)
    return seen


def leaves(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) is not None:
        return [leaf for inner in get_args(annotation) for leaf in leaves(inner)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


PARTS = parts(Policy, {})


def test_all_parts_are_found() -> None:
    assert len(PARTS) >= 12
    assert {"Limits", "Reservation", "UsageWeights"} <= set(PARTS)


@pytest.mark.parametrize("name", sorted(PARTS))
def test_every_field_is_in_the_table_of_its_part(name: str) -> None:
    section = re.search(rf"(?ms)^\((?:policy-)?{name.lower()}\)=\n(.*?)(?=^\(|\Z)", PAGE)
    assert section, f"no section ({name.lower()})="
    rows = set(re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE))
    assert rows == set(PARTS[name].model_fields)


@pytest.mark.parametrize("name", sorted(PARTS))
def test_the_page_states_the_defaults_as_they_are(name: str) -> None:
    """Numbers and words of the column `default` make the part that the code makes."""
    import yaml

    section = re.search(rf"(?ms)^\((?:policy-)?{name.lower()}\)=\n(.*?)(?=^\(|\Z)", PAGE)
    assert section
    stated = {
        field: yaml.safe_load(value)
        for field, value in re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", section[1], re.MULTILINE)
    }
    made = PARTS[name].model_validate({**required(name), **stated})
    assert made == PARTS[name].model_validate(required(name))
    for field in set(PARTS[name].model_fields) - set(stated) - set(required(name)):
        default = getattr(made, field)
        assert not default or isinstance(default, BaseModel | dict), f"{field} has a default: {default!r}"


def required(name: str) -> dict[str, Any]:
    return REQUIRED.get(name, {})


REQUIRED: dict[str, dict[str, Any]] = {
    "Reservation": {"nodes": ["n1"], "start": "2026-01-01", "end": "2026-01-02"},
    "ImageEntry": {"image": "python"},
    "ImageRule": {"image": "python"},
    "Convention": {"prefix": "calc-"},
    "VolumeEntry": {"source": "/srv/data", "target": "/data"},
}


def test_the_examples_are_policies() -> None:
    examples = re.findall(r"(?ms)^```yaml\n(.*?)^```", PAGE)
    assert len(examples) >= 4
    for text in examples:
        load(text)


def test_every_scheduler_is_on_the_page_and_says_what_it_does() -> None:
    assert [name for name in registry.names() if f"`{name}`" not in PAGE] == []
    assert [name for name in registry.names() if not registry.create(name, Policy()).__doc__] == []


def test_every_part_says_what_it_is() -> None:
    assert [name for name, part in PARTS.items() if not vars(part).get("__doc__")] == []
    assert document.__doc__


def test_a_job_without_a_project_needs_no_project() -> None:
    assert waiting("alice").spec.project is None
