"""Volumes: which paths there may be, who has them, and what a job's mounts come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove.model import Account, FieldError, InvalidSpecError, JobSpec, OperatorError
from perijove_hub.accounts import Identity
from perijove_hub.admission.lists import Lists
from perijove_hub.admission.volumes import UnplaceableError, Whose, mounts_of, placed
from perijove_hub.policy.document import load
from perijove_hub.policy.volumes import VolumeEntry, wrong_source, wrong_target
from perijove_hub.settings import Settings, VolumeSetting
from perijove_spawners.launcher import Mount

from .test_admission import ADA, ada, refused
from .test_roles import site

POLICY = """
projects:
  genomics: {members: [ada]}
  physics: {members: [bob]}
volumes:
  data: {source: /srv/data, target: /data, read_only: true}
  shared: {source: "/srv/{project}", target: /shared}
  mine: {source: "/srv/u/{user}", target: "/mine"}
  deep: {source: /srv/deep, target: /data/deep}
  notes: {source: "{home}/notes", target: "{home}/notes"}
  theirs: {source: /srv/t, target: /theirs, projects: [physics]}
  staff: {source: /srv/s, target: /staff, users: ["@staff"]}
"""
ALONE = POLICY.replace("members: [ada]", "members: [eve]")
DOCKER: dict[str, Any] = {"launcher": "docker"}


def mounts(names: list[str], policy: str = POLICY, **more: Any) -> dict[str, Mount]:
    settings = Settings(mode="hub", volumes=more.pop("settings", {}))
    spec = JobSpec.model_validate({"command": ["true"], "volumes": names, "project": "genomics", **more})
    found = mounts_of(spec, "ada", ADA, Lists(settings, load(policy)).volumes)
    return {mount.target: mount for mount in found}


def wrong(names: list[str], **more: Any) -> FieldError:
    (error,) = refused({**DOCKER, "volumes": names}, policy=more.pop("policy", POLICY), **more)
    assert error.field == "volumes"
    return error


@pytest.mark.parametrize(
    "path",
    [
        "data",
        "/srv/../etc",
        "/srv/./x",
        "/srv\n/x",
        "/srv:/x",
        "/srv,ro",
        "/srv/{group}",
        "/srv/{",
        "/srv/}{",
        "/x{home}",
        "{home}x",
        "",
        "/",
        "//",
        "/etc",
        "/etc/ssl",
        "/proc",
    ],
)
def test_paths_that_no_volume_may_have(path: str) -> None:
    assert wrong_source(path)
    assert wrong_target(path)
    with pytest.raises(InvalidSpecError):
        load(f"volumes: {{x: {{source: {path!r}, target: /x}}}}")


@pytest.mark.parametrize("path", ["/usr", "/usr/local/x", "/in", "/in/x", "/run/perijove", "/lib64", "/bin/"])
def test_nothing_takes_the_place_of_a_containers_own(path: str) -> None:
    assert wrong_target(path)
    with pytest.raises(ValueError, match="would take the place"):
        Settings(volumes={"x": VolumeSetting(source="/srv", target=path)})


@pytest.mark.parametrize("path", ["/data", "/data/{user}", "{home}/x", "{home}", "/library", "/opt/x"])
def test_paths_that_a_volume_may_have(path: str) -> None:
    assert not wrong_target(path)


def test_home_is_everybodys_own() -> None:
    with pytest.raises(InvalidSpecError, match="home is everybody's own"):
        load("volumes: {home: {source: /srv/h, target: /h}}")
    with pytest.raises(ValueError, match="home is everybody's own"):
        Settings(volumes={"home": VolumeSetting(source="/srv/h", target="/h")})


def test_who_has_which() -> None:
    for name in ("data", "mine", "shared"):
        assert ada({**DOCKER, "volumes": [name]}, policy=POLICY)
    for name in ("theirs", "staff", "none"):
        error = wrong([name])
        assert error.message == (
            "there is no such volume for you; you have: home, data, deep, mine, notes, shared"
        )
    assert ada({**DOCKER, "volumes": ["staff"]}, policy=POLICY, groups=frozenset({"staff"}))


def test_a_projects_folder_needs_a_project() -> None:
    assert "this job is in none" in wrong(["shared"], policy=ALONE).message


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["data", "deep"], "it is seen at /data/deep, and data at /data"),
        (["home", "notes"], "it is seen at /home/ada/notes, and home at /home/ada"),
        (["data", "data:ro"], "asked for twice: data"),
    ],
)
def test_two_volumes_are_not_seen_at_one_place(names: list[str], said: str) -> None:
    assert said in wrong(names).message


def test_modes_are_lowered_and_never_raised() -> None:
    found = mounts(["home", "data:rw", "mine:ro", "shared"])
    assert found["/data"] == Mount("/srv/data", "/data", read_only=True)
    assert found["/mine"] == Mount("/srv/u/ada", "/mine", read_only=True)
    assert found["/shared"] == Mount("/srv/genomics", "/shared")
    assert found["/home/ada"] == Mount("/home/ada", "/home/ada")
    assert all(mount.read_only for mount in mounts(["home", "shared"], user="root").values())
    assert mounts([], sealed=True) == {}


def test_what_the_settings_have_the_policy_does_not_replace() -> None:
    setting = {"data": VolumeSetting(source="/srv/own", target="/own", read_only=True)}
    assert mounts(["data"], settings=setting) == {"/own": Mount("/srv/own", "/own", read_only=True)}


def test_a_volume_that_is_gone_is_an_error_that_names_it() -> None:
    with pytest.raises(OperatorError, match="volume data is on the site's list no more"):
        mounts(["data"], policy="{}")


def test_a_home_that_lies_elsewhere_is_mounted_from_there() -> None:
    guest = Identity(Account("ada", 20_000, 20_000, "/home/ada"), home_source="/srv/guests/ada")
    volume = VolumeEntry(source="{home}/notes", target="{home}/notes")
    assert placed("notes", volume, Whose("ada", None, guest)) == ("/srv/guests/ada/notes", "/home/ada/notes")


@given(st.text(max_size=12))
def test_no_name_of_a_user_leads_elsewhere(name: str) -> None:
    volume = VolumeEntry(source="/srv/{user}/x", target="/t/{user}")
    try:
        source, target = placed("v", volume, Whose(name, None, ADA))
    except UnplaceableError:
        return
    assert Path(source).parts == ("/", "srv", name, "x")
    assert Path(target).parts == ("/", "t", name)


def test_a_name_cannot_make_a_system_folder_of_a_path() -> None:
    volume = VolumeEntry(source="/{user}", target="/x")
    with pytest.raises(UnplaceableError, match="nothing of /etc"):
        placed("v", volume, Whose("etc", None, ADA))


async def test_administrators_list_volumes(settings: Settings) -> None:
    mine = settings.model_copy(update={"volumes": {"fixed": VolumeSetting(source="/srv/f", target="/f")}})
    async with site(mine) as by:
        body = {"source": "/srv/data", "target": "/data", "users": ["alice"], "description": "All data"}
        made = await by["boss"].put("/volumes/data", json=body)
        assert made.status_code == 200, made.text
        assert made.json()["source"] == "/srv/data"
        seen = {one["name"]: one for one in (await by["alice"].get("/volumes")).json()}
        assert set(seen) == {"home", "fixed", "data"}
        assert (seen["data"]["target"], seen["data"]["source"], seen["data"]["users"]) == ("/data", None, [])
        assert {one["name"] for one in (await by["bob"].get("/volumes")).json()} == {"home", "fixed"}
        for path, json, status in (
            ("/volumes/fixed", body, 409),
            ("/volumes/home", body, 422),
            ("/volumes/x", {**body, "source": "/etc"}, 422),
            ("/volumes/a b", body, 422),
        ):
            assert (await by["boss"].put(path, json=json)).status_code == status, path
        assert (await by["boss"].delete("/volumes/data")).status_code == 204
        assert (await by["boss"].delete("/volumes/data")).status_code == 404
