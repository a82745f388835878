"""Service and node die while a guest becomes a member of another uid: the files are all theirs in the end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from installation import Installation, installed
from tests.conftest import absent
from waiting import wait_until

from perijove_spawners import failpoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
NOBODY, GUEST = 65_534, 20_001
"""The uid of the system account ``nobody``, and that of the first who has none."""


def test_a_death_anywhere_leaves_no_file_behind(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        absent("only root gives files to others")
    died = {place: tmp_path / place for place in failpoints.HOMES}
    env = {"PERIJOVE_FAILPOINTS": ",".join(f"{place}={mark}" for place, mark in died.items())}
    state = tmp_path / "state"
    state.mkdir(mode=0o711)
    (state / "perijove.yaml").write_text("guests: {pool: [nobody]}\n")
    options = ("--no-hub", "--port", "0", "--launcher", "process")
    with installed(state, *options, env=env) as site:
        ask(site, "POST", "/users", name="dave", kind="guest")
        home = Path(ask(site, "POST", "/users/dave/activate")["home"])
        outside = filled(home, tmp_path)
        wait_until(lambda: tried(site, "/users/dave/promote"), "the promotion", 120)
        wait_until(lambda: ask(site, "GET", "/users/dave")["kind"] == "member", "what was decided", 120)
        wait_until(lambda: owners(home) == {GUEST}, "the files' new owner", 120)
        wait_until(lambda: tried(site, "/users/dave/release"), "the account's release", 120)
        assert [place for place, mark in died.items() if not mark.exists()] == [], "these were never reached"
        assert {path.lstat().st_uid for path in (outside, *outside.iterdir())} == {NOBODY}
        assert (home / "theirs").stat().st_uid == 0
        # The account is the next guest's now, and it finds nothing of the former.
        ask(site, "POST", "/users", name="erin", kind="guest")
        assert ask(site, "POST", "/users/erin/activate")["account"] == "nobody"
        assert owners(home) == {GUEST}


def filled(home: Path, tmp_path: Path) -> Path:
    """Files of the guest, and one that is not; a link to a folder outside, which is the answer."""
    outside = tmp_path / "outside"
    for folder in (home, home / "a", home / "a/b", outside):
        folder.mkdir(parents=True, mode=0o700)
        (folder / "file").write_text("x")
    (home / "link").symlink_to(outside)
    for path in (home, *home.rglob("*"), outside, outside / "file"):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    (home / "theirs").write_text("of root")
    return outside


def owners(home: Path) -> set[int]:
    """Of the home and all in it but what was never the guest's."""
    some = (path for path in home.rglob("*") if path.name != "theirs")
    return {path.lstat().st_uid for path in (home, *some)}


def tried(site: Installation, path: str) -> bool:
    """Whether it is done, or was before; the service may die at it."""
    try:
        with site.client() as http:
            answer = http.post(path)
    except httpx.TransportError:
        return False
    return answer.status_code == 200 or "already" in answer.text


def ask(site: Installation, method: str, path: str, **body: Any) -> Any:
    """An administrator's request; a service that has died is waited for."""

    def answered() -> httpx.Response | None:
        try:
            with site.client() as http:
                found = http.request(method, path, json=body or None)
        except httpx.TransportError:
            return None
        return None if found.status_code == 503 else found

    answer = wait_until(answered, f"{method} {path}", 120)
    assert answer.status_code < 300, answer.text
    return answer.json()
