"""The commands of administrators and leads, against a service that listens: what they say and refuse."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner, Result

from perijove.cli.app import app as commands
from perijove_hub.app import listen
from perijove_spawners.joining import JoinToken, request_of

from .guests import Site, guest_settings, site

pytestmark = pytest.mark.slow

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[tuple[Site, str]]:
    """A site with guests that listens, and where."""
    settings = guest_settings(tmp_path_factory.mktemp("administration"), migrated)
    settings = settings.model_copy(update={"scheduler": "tls://127.0.0.1:1"})
    ready: Future[tuple[Site, str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        over = asyncio.Event()
        async with site(settings, {"pool": ["nobody"], "disk": "1G"}) as here:
            [socket] = listen(["127.0.0.1:0"])
            config = uvicorn.Config(here.app, log_config=None, access_log=False, lifespan="off")
            server = uvicorn.Server(config)
            task = asyncio.create_task(server.serve(sockets=[socket]))
            while not server.started:
                await asyncio.sleep(0.01)
            url = f"http://127.0.0.1:{socket.getsockname()[1]}"
            ready.set_result((here, url, asyncio.get_running_loop(), over))
            await over.wait()
            server.should_exit = True
            await task

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    here, url, loop, over = ready.result(60)
    yield here, url
    loop.call_soon_threadsafe(over.set)
    thread.join(60)


@pytest.fixture
def perijove(served: tuple[Site, str], tmp_path: Path) -> Command:
    """Runs ``perijove WORDS`` as boss, or somebody else."""

    def run(*words: str, by: str = "boss", code: int = 0) -> Result:
        env = {"PERIJOVE_URL": served[1], "PERIJOVE_TOKEN": by, "COLUMNS": "200", "HOME": str(tmp_path)}
        done = CliRunner().invoke(commands, list(words), env=env)
        assert done.exit_code == code, done.output + repr(done.exception)
        assert "Input should" not in done.output and "Traceback" not in done.output
        return done

    return run


def told(perijove: Command, *words: str, **more: Any) -> Any:
    """What it prints with ``--json``."""
    return json.loads(perijove(*words, "--json", **more).stdout)


def refused(perijove: Command, text: str, *words: str, code: int = 1, by: str = "boss") -> None:
    done = perijove(*words, by=by, code=code)
    assert text in " ".join(done.output.split()), done.output


def test_users_from_their_invitation_to_their_removal(perijove: Command, served: tuple[Site, str]) -> None:
    here, url = served
    made = told(perijove, "user", "add", "eve", "--number", "42", "--email", "e@example.org")
    assert (made["name"], made["number"], made["state"]) == ("eve", 42, "active")
    refused(perijove, "number: must be at most 9999", "user", "add", "eva", "--number", "10000")
    refused(perijove, "there is a user eve already", "user", "add", "eve")
    refused(perijove, "a login is PROVIDER:SUBJECT", "user", "add", "eva", "--login", "x")
    refused(perijove, "none that means something else here", "user", "add", "root")
    assert told(perijove, "user", "link", "eve", "github:7")["identities"][0]["subject"] == "7"
    assert told(perijove, "user", "link", "eve", "github:7", "--remove").get("identities", []) == []
    refused(perijove, "eve has no login 7 of github", "user", "link", "eve", "github:7", "--remove")

    words = ("user", "invite", "--project", "moon", "--email", "g@example.org", "--cpu", "2h", "--disk", "2G")
    invited = told(perijove, *words)
    assert invited["link"] == f"{url}/hub/invitation?code={invited['code']}"
    assert invited["budget"] == {"cpu_minutes": 120.0, "gpu_minutes": None, "disk": 2 << 30}
    link = perijove("user", "invite", "--until", "1d", by="boss").stdout.strip()
    assert link.startswith(f"{url}/hub/invitation?code=") and "\n" not in link
    refused(perijove, "must be later than now", "user", "invite", "--until", "2020-01-01")
    refused(perijove, "--disk", "user", "invite", "--disk", "much")
    refused(perijove, "more than guests have here", *words, by="lena")
    assert [one["id"] for one in told(perijove, "user", "invitations")] == [1, 2]
    perijove("user", "invitations", "--withdraw", "2")
    assert "g@example.org" in perijove("user", "invitations").stdout
    refused(perijove, "there is no invitation 99", "user", "invitations", "--withdraw", "99")

    perijove("user", "add", "gina", "--guest", "--project", "moon")
    assert [one["name"] for one in told(perijove, "user", "ls", "--waiting")] == ["gina"]
    assert [one["name"] for one in told(perijove, "user", "ls", "--guests", by="lena")] == ["gina"]
    active = told(perijove, "user", "activate", "gina", "--expires", "30d", "--cpu", "1h", by="lena")
    assert (active["state"], active["account"]) == ("active", "nobody")
    refused(perijove, "only who is waiting can be activated", "user", "activate", "gina")
    refused(perijove, "say what to give", "user", "extend", "gina", code=2)
    refused(perijove, "must be later than now", "user", "extend", "gina", "--expires", "2020-01-01")
    assert told(perijove, "user", "extend", "gina", "--gpu", "90m")["budget"]["gpu_minutes"] == 90
    assert told(perijove, "user", "disable", "gina", "--drain")["state"] == "disabled"
    refused(perijove, "only one of the two", "user", "disable", "gina", "--drain", "--stop", code=2)
    assert told(perijove, "user", "enable", "gina")["state"] == "active"
    assert "gina is signed out everywhere" in perijove("user", "sign-out", "gina").stderr
    assert "2G" not in perijove("user", "show", "gina").stdout
    refused(perijove, "only an administrator may", "user", "sign-out", "gina", by="lena")
    refused(perijove, "there is no user gina", "user", "show", "gina", by="sam")
    promoting = ("user", "promote", "gina", "--account", "root")
    refused(perijove, "must be the system account of a person", *promoting)
    assert told(perijove, "user", "promote", "gina")["kind"] == "member"
    refused(perijove, "gina is a member already", "user", "promote", "gina")
    refused(perijove, "holds no account", "user", "release", "eve")
    assert told(perijove, "user", "remove", "eve")["state"] == "removed"
    assert "removed" in perijove("user", "ls").stdout
    assert here.users.people["eve"].user.number == 42


def test_projects_and_quotas(perijove: Command) -> None:
    assert "mars is a project now" in perijove("project", "add", "mars", "--cpus", "64").stderr
    assert "mars is changed" in perijove("project", "set", "mars", "--description", "Red").stderr
    made = told(perijove, "project", "set", "mars", "--gpus", "2", "--gpu-hours", "9", "--pending", "5")
    assert made["project"]["limits"] == {"gpus": 2, "gpu_hours": 9.0, "pending": 5}
    member = told(perijove, "project", "add-member", "mars", "ada")
    assert member["project"]["members"] == ["ada"]
    assert told(perijove, "project", "add-member", "mars", "bob", "--lead")["project"]["leads"] == ["bob"]
    each = told(perijove, "project", "limit", "mars", "--cpus", "4", "--memory", "8G")
    assert each["project"]["member_limits"] == {"cpus": 4.0, "memory": 8 << 30}
    told(perijove, "project", "limit", "mars", "--member", "ada", "--running", "1")
    assert "ada" not in told(perijove, "project", "rm-member", "mars", "ada")["project"].get("members", [])
    refused(perijove, "ada is not among the members", "project", "rm-member", "mars", "ada")
    refused(perijove, "there is no project venus", "project", "add-member", "venus", "ada")
    refused(perijove, "only an administrator", "project", "rm", "mars", by="lena")
    refused(perijove, "there is no project mars", "project", "limit", "mars", "--cpus", "1", by="lena")
    refused(perijove, "memory", "project", "set", "mars", "--memory", "much")
    refused(perijove, "cpus: must be", "project", "set", "mars", "--cpus=-1")
    perijove("project", "rm", "mars")
    limits = told(perijove, "quota", "ada", "--cpus", "32", "--memory", "128G", "--running", "50")
    assert limits == {"name": "ada", "limits": {"cpus": 32.0, "memory": 128 << 30, "running": 50}}
    refused(perijove, "give limits", "quota", "ada")
    refused(perijove, "only an administrator", "quota", "ada", "--cpus", "1", by="sam")
    assert told(perijove, "quota", "ada", "--none")["limits"] == {}


def too_late(perijove: Command, served: tuple[Site, str]) -> None:
    """A host comes with a token two hours after it was made."""
    here, url = served
    token = JoinToken.parse(told(perijove, "join-token", "create", "n8")["token"])
    asked = request_of(token, "n8", ec.generate_private_key(ec.SECP256R1()))
    clock = here.controller.clock
    here.controller.clock = lambda: clock() + 7200
    answer = httpx.post(f"{url}/api/v1/nodes/join", json=asked)
    here.controller.clock = clock
    expired = "this token has expired; have another one made"
    assert (answer.status_code, answer.json()["detail"]) == (403, expired)


def test_announcements_tokens_of_nodes_and_the_audit_log(perijove: Command, served: tuple[Site, str]) -> None:
    made = told(perijove, "announcement", "add", "Power off at noon", "--warning", "--ends", "2d")
    assert made["level"] == "warning"
    assert "Power off at noon" in perijove("announcement", "ls", by="sam").stdout
    refused(perijove, "only an administrator", "announcement", "add", "x", by="sam")
    refused(perijove, "must be a line of text", "announcement", "add", " ")
    refused(perijove, "--ends", "announcement", "add", "x", "--ends", "soon")
    perijove("announcement", "rm", str(made["id"]))
    refused(perijove, "there is no announcement", "announcement", "rm", str(made["id"]))

    created = told(perijove, "join-token", "create", "n7")
    assert created["token"].startswith("pjn_") and created["reachable"] is False
    assert "for this host alone" in perijove("join-token", "create", "n8").stderr
    assert {one["node"] for one in told(perijove, "join-token", "ls")} == {"n7", "n8"}
    perijove("join-token", "rm", "n7")
    refused(perijove, "there is no token for a node n7", "join-token", "rm", "n7")
    too_late(perijove, served)
    refused(perijove, "only an administrator", "join-token", "create", "n9", by="lena")
    refused(perijove, "node", "join-token", "create", "n 9")

    refused(perijove, "node n1 is up and has a key that was not given", "remove-node", "n1")
    refused(perijove, "there is no node n5", "remove-node", "n5")
    perijove("drain", "n1", "--reason", "a fan")
    perijove("undrain", "n1")
    found = told(perijove, "audit", "--by", "boss", "--subject", "node *", "-n", "20")
    assert [one["act"] for one in found][-2:] == ["drain", "undrain"]
    assert "create join token" in perijove("audit", "--act", "create join token").stdout
    assert all(one["subject"] == "node n1" for one in told(perijove, "audit", "--subject", "node n1"))
    refused(perijove, "--since", "audit", "--since", "yesterday")
    refused(perijove, "only administrators and leads of projects may read the audit log", "audit", by="gina")
    assert told(perijove, "audit", "--subject", "node *", by="sam") == []
