"""What only some may have: root, the node's namespaces and screen, networks, ports."""

from __future__ import annotations

from typing import Any

import pytest

from perijove.model import FieldError, Node
from perijove_hub.policy.document import load
from perijove_hub.policy.grants import Grant, Grants
from perijove_hub.policy.who import are_meant

from .conftest import node
from .test_admission import ada, refused

GRANTS = "grants: {root: [ada], host_network: [ada], host_ipc: [ada], gui: [ada], ports: [ada]}"
NONE = "grants: {host_network: [], ports: []}"
GUEST = f"{GRANTS}\nusers: {{ada: {{guest: true}}}}"


def able() -> Node:
    """A node whose containers can be all that is granted."""
    one = node("n1")
    more = {"root", "ipc", "gui", "sealed", "ports"}
    networks = frozenset({"none", "bridge", "user", "project", "host"})
    launchers = [
        offered.model_copy(update={"features": offered.features | more, "networks": networks})
        if offered.containers
        else offered
        for offered in one.launchers
    ]
    return one.model_copy(update={"launchers": launchers})


def run(spec: dict[str, Any], **more: Any) -> Any:
    return ada({"launcher": "docker", **spec}, able(), **more).spec


def wrong(spec: dict[str, Any], **more: Any) -> list[FieldError]:
    return refused({"launcher": "docker", **spec}, able(), **more)


ASKED: list[dict[str, Any]] = [
    {"user": "root"},
    {"network": "host"},
    {"ipc": "host"},
    {"gui": True},
    {"ports": [80]},
]


@pytest.mark.parametrize("spec", ASKED, ids=lambda spec: next(iter(spec)))
def test_it_is_for_whom_the_policy_grants_it(spec: dict[str, Any]) -> None:
    [field] = spec
    assert getattr(run(spec, policy=GRANTS), field) == spec[field]
    (error,) = wrong(spec, policy=NONE)
    assert error.field == field


@pytest.mark.parametrize("spec", ASKED[:3], ids=lambda spec: next(iter(spec)))
def test_guests_never_get_the_node(spec: dict[str, Any]) -> None:
    assert next(iter(spec)) in {error.field for error in wrong(spec, policy=GUEST)}


@pytest.mark.parametrize("spec", [ASKED[0], *ASKED[2:4]], ids=lambda spec: next(iter(spec)))
def test_a_sealed_job_shares_nothing(spec: dict[str, Any]) -> None:
    (error,) = wrong({**spec, "sealed": True}, policy=GRANTS)
    assert "sealed" in error.message


def test_processes_have_no_root_of_their_own() -> None:
    (error,) = refused({"user": "root"}, policy=GRANTS)
    assert error.message == "not supported by launcher process: there is no container to be root in"


def test_without_a_word_of_the_policy_the_setting_decides_on_the_nodes_network() -> None:
    assert run({"network": "host"}, networks=["none", "host"]).network == "host"
    assert "allowed: none" in wrong({"network": "host"}, networks=["none"])[0].message
    assert wrong({"network": "host"}, networks=["none", "host"], policy=NONE)
    assert run({"network": "host"}, networks=["none"], policy=GRANTS).network == "host"
    assert run({"ports": [80]}).ports == [80]


def test_the_projects_network_needs_a_project() -> None:
    policy = "projects: {genomics: {members: [ada]}}"
    assert run({"network": "project"}, policy=policy).network == "project"
    (error,) = wrong({"network": "project"})
    assert "in no project" in error.message


def test_a_notebook_server_has_its_own_port() -> None:
    assert run({"kind": "server", "ports": [8888]}, policy=NONE)


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["ada"], True),
        (["a*"], True),
        (["@ops"], True),
        (["@ada"], False),
        (["project:genomics"], True),
        (["project:g*"], True),
        (["project:physics"], False),
        ([], False),
    ],
)
def test_whom_a_list_means(names: list[str], meant: bool) -> None:
    assert are_meant(names, "ada", "genomics", frozenset({"ops"})) is meant


def test_names_of_users_are_taken_for_nothing_else() -> None:
    assert not are_meant(["project:genomics"], "project:genomics", None)
    assert not are_meant(["@ops"], "@ops", None)


@pytest.mark.parametrize("grant", list(Grants.model_fields))
def test_the_empty_policy_grants_nothing(grant: Grant) -> None:
    assert not load("").grants.say(grant, "ada", None)
