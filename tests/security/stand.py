"""A whole service in this process, with people of every role, and objects of one of them to be asked for."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from fastapi import FastAPI
from tests.hub.working import WorkingNode
from waiting import becomes

from perijove.model import Scope, UnauthorizedError, User, UserKind, UserState
from perijove_hub.app import create_app
from perijove_hub.identity import Caller
from perijove_hub.settings import ManagedAccount, Settings
from perijove_hub.users.arrival import Arrival
from perijove_hub.users.person import Person
from perijove_spawners.fabric.port import DirectFabric

from .expectations import POLICY, RESERVATION, Expected, public_key

SECRET = "only-alice-knows"
"""In name, labels and environment of all that is alice's."""
ABSENT = {
    "job_id": "999999",
    "number": "999999",
    "digest": "sha256:" + "0" * 64,
    "name": "absent",
    "token": "absent",
    "label": "a",
    "fingerprint": "SHA256:AAAA",
    "token_id": "999999",
    "key": "absent",
    "node": "absent",
    "user": "absent",
}
"""By the name in a path, what is not there."""
PEOPLE = ("alice", "bob", "carol", "boss", "dora", "wanda", "gast")

ROLES = {
    "owner": Caller("alice"),
    "reader": Caller("alice", scope=Scope.READ),
    "other": Caller("bob"),
    "lead": Caller("carol"),
    "administrator": Caller("boss", admin=True, scope=Scope.ADMIN),
    "no administrator any more": Caller("bob", admin=False, scope=Scope.ADMIN),
    "act-as": Caller("spawner", act_as=True, person=False),
    "login": Caller("perijove-login", login=True, person=False),
    "disabled": Caller("dora"),
    "waiting": Caller("wanda"),
    "guest": Caller("gast"),
}
"""By what the token says. What else they are, the service knows."""


MADE: dict[str, Any] = {
    "image": {"image": "perijove-notebook:latest"},
    "volume": {"source": "/srv/data", "target": "/v{new}"},
    "project": {"members": ["alice"]},
}

STRANGERS = {
    "anonymous": None,
    "malformed": b"Bearer \xff\xfe{}'\"-- \x7f",
    "own, made up": b"Bearer pjt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "basic": b"Basic YWxpY2U6YWxpY2U=",
}
"""What they send as ``Authorization``."""


@dataclass
class Passes:
    """Identities by token; who may still be an administrator is what the caller says."""

    callers: dict[str, Caller] = field(default_factory=dict)

    def give(self, caller: Caller) -> str:
        token = secrets.token_urlsafe(12)
        self.callers[token] = caller
        return token

    async def caller(self, token: str) -> Caller:
        if token not in self.callers:
            raise UnauthorizedError("this token is not valid, or has expired")
        return self.callers[token]

    async def administers(self, name: str) -> bool | None:
        return name == "boss" if name in PEOPLE else None

    async def issued(self, caller: Caller) -> float:
        assert caller.issued is not None
        return caller.issued


@dataclass
class Stand:
    """The service, clients by role, and makers of alice's objects."""

    app: FastAPI
    by: dict[str, httpx.AsyncClient]
    node: WorkingNode
    state: Path
    kept: dict[tuple[str, str | None], dict[str, str]] = field(default_factory=dict)
    """Objects that only reading requests are sent to, by kind and project."""

    async def names(
        self,
        expected: Expected,
        project: str | None,
        shared: dict[tuple[str, str | None], dict[str, str]] | None,
        role: str = "owner",
    ) -> dict[str, str]:
        """What the path of an operation is filled with: a new object of alice's, or one of those `shared`."""
        kind = expected.of or "nothing"
        if shared is None:
            return await self._new(kind, project)
        found = shared.get((kind, project))
        if found is None:
            found = shared[kind, project] = await self._new(kind, project)
        return found

    async def _new(self, kind: str, project: str | None) -> dict[str, str]:
        known = {"node": self.node.name, "new": secrets.token_hex(6)}
        match kind:
            case "job":
                return {**known, "job_id": await self.job(project)}
            case "ended job":
                job = await self.job(project, command=["done"])
                await self.ended(f"/jobs/{job}")
                return {**known, "job_id": job}
            case "output":
                return {**known, "job_id": await self.with_output(project), "name": "x"}
            case "run":
                return {**known, "number": await self.run(project)}
            case "ended run":
                run = await self.run(project, "done")
                await self.ended(f"/workflows/{run}")
                return {**known, "number": run}
            case "run's output":
                return {**known, **await self.run_with_output(project)}
            case "file":
                return {**known, "digest": await self.file()}
            case "node":
                return {**known, "name": self.node.name}
            case "reservation":
                name = f"r{secrets.token_hex(4)}"
                answer = await self.by["administrator"].put(f"/reservations/{name}", json=RESERVATION)
                assert answer.status_code == 200, answer.text
                return {**known, "name": name}
            case "secret" | "registry":
                name = "s{new}" if kind == "secret" else "r{new}.example"
                return {**known, "name": filled(name, known), **await self._put(kind, filled(name, known))}
            case "token":
                return {**known, "number": str((await self.made("/tokens", {"name": "laptop"}))["id"])}
            case "key":
                return {
                    **known,
                    "fingerprint": (await self.made("/keys", {"key": public_key(secrets.token_bytes(32))}))[
                        "fingerprint"
                    ],
                }
            case "announcement":
                made = await self.made("/announcements", {"text": "hello"}, "administrator")
                return {**known, "number": str(made["id"])}
            case "guest user":
                guest = User(name="g{new}".format(**known), kind=UserKind.GUEST, project="lab", created=1.0)
                await self.app.state.users.add(Person(guest.model_copy(update={"activated": 1.0})))
                return {**known, "name": guest.name}
            case "invitation":
                made = await self.made("/invitations", {"project": "lab"}, "administrator")
                return {**known, "number": str(made["id"])}
            case "image" | "volume" | "project":
                name, body = f"i{known['new']}", filled(MADE[kind], known)
                answer = await self.by["administrator"].put(f"/{kind}s/{name}", json=body)
                assert answer.status_code == 200, answer.text
                return {**known, "name": name, "user": "alice"}
            case "user":
                return {**known, "name": "alice"}
        return {**known, "name": f"n{known['new']}", "node": "n7", "token": "x"}

    async def made(self, path: str, body: Any, role: str = "owner") -> dict[str, Any]:
        answer = await self.by[role].post(path, json=body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def _put(self, kind: str, name: str) -> dict[str, str]:
        if kind == "secret":
            answer = await self.by["owner"].put(f"/secrets/{name}", content=SECRET)
        else:
            login = {"username": SECRET, "password": SECRET}
            answer = await self.by["owner"].put(f"/registries/{name}", json=login)
        assert answer.status_code == 200, answer.text
        return {}

    async def opened(self, role: str, request: httpx.Request) -> httpx.Response:
        """The beginning of an answer that has no end."""
        begun: asyncio.Future[tuple[int, Any]] = asyncio.get_running_loop().create_future()
        pieces: list[bytes] = []
        enough = asyncio.Event()

        unread = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> dict[str, Any]:
            if unread:
                return unread.pop()
            await enough.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                begun.set_result((message["status"], message["headers"]))
            else:
                pieces.append(message.get("body", b""))
                enough.set()

        url = request.url
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "headers": [(key.lower(), value) for key, value in request.headers.raw],
            "server": ("s", 80),
            "client": ("127.0.0.1", 1),
            "root_path": "",
        }
        task = asyncio.create_task(self.app(scope, receive, send))
        waiting = asyncio.ensure_future(enough.wait())
        await asyncio.wait({task, waiting}, return_when="FIRST_COMPLETED")
        task.cancel()
        waiting.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)
        status, headers = await begun
        return httpx.Response(status, headers=headers, content=b"".join(pieces), request=request)

    async def job(self, project: str | None = "lab", **spec: Any) -> str:
        """A job of alice's that runs."""
        body = {"command": ["wait"], "name": SECRET, "labels": {"a": SECRET}, "env": {"A": SECRET}, **spec}
        answer = await self.by["owner"].post("/jobs", json={**body, "project": project})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def run(self, project: str | None = "lab", command: str = "wait") -> str:
        """A run of alice's."""
        step = {"command": [command], "env": {"A": SECRET}}
        body = {"workflow": {"name": SECRET, "steps": {"a": step}}, "project": project}
        answer = await self.by["owner"].post("/workflows", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def file(self) -> str:
        """A file of alice's alone."""
        content = f"{SECRET} {secrets.token_hex(8)}".encode()
        answer = await self.by["owner"].post("/files", content=content)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["digest"])

    async def run_with_output(self, project: str | None) -> dict[str, str]:
        """A run of alice's that has ended; its step ``a`` left a file ``x``."""
        step = {"command": ["done"], "outputs": {"x": "file:x"}}
        title = f"{SECRET}-{secrets.token_hex(4)}"
        body = {"workflow": {"name": title, "steps": {"a": step}}, "project": project, "cache": "off"}
        self.node.outputs.clear()
        self.node.outputs["a"] = {"x": await self.file()}
        answer = await self.by["owner"].post("/workflows", json=body)
        assert answer.status_code == 201, answer.text
        run = str(answer.json()["id"])
        await self.ended(f"/workflows/{run}")
        return {"number": run, "label": "a", "name": "x"}

    async def ended(self, path: str) -> None:
        async def over() -> bool:
            answer = await self.by["owner"].get(path)
            return answer.json().get("state") in {"succeeded", "failed", "killed"}

        await becomes(over, f"{path} ends", 60)

    async def with_output(self, project: str | None) -> str:
        """A job of alice's that has ended and left a file ``x``."""
        digest = await self.file()
        name = f"{SECRET}-{secrets.token_hex(4)}"
        self.node.outputs[name] = {"x": digest}
        job = await self.job(project, command=["done"], name=name, outputs=["x"])
        await self.ended(f"/jobs/{job}")
        return job


def filled(value: Any, names: Mapping[str, str]) -> Any:
    """`value` with ``{name}`` in its texts replaced by what `names` say."""
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda match: quote(names.get(match[1], match[0]), safe=":{}"), value)
    if isinstance(value, Mapping):
        return {key: filled(one, names) for key, one in value.items()}
    return [filled(one, names) for one in value] if isinstance(value, list) else value


@asynccontextmanager
async def standing(settings: Settings) -> AsyncIterator[Stand]:
    """The stand, with policy and people."""
    accounts = {name: ManagedAccount(uid=20_000 + i, gid=20_000 + i) for i, name in enumerate(PEOPLE)}
    settings = settings.model_copy(update={"accounts": accounts, "mode": "hub"})
    passes, node = Passes(), WorkingNode()
    app = create_app(settings, fabric=DirectFabric([node]), identities=passes)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)

        def client(authorization: bytes | None) -> httpx.AsyncClient:
            headers = {} if authorization is None else {b"Authorization": authorization}
            return httpx.AsyncClient(transport=transport, base_url="http://s/api/v1", headers=headers)

        by = {role: client(f"Bearer {passes.give(caller)}".encode()) for role, caller in ROLES.items()}
        by |= {role: client(sent) for role, sent in STRANGERS.items()}
        stand = Stand(app, by, node, settings.state)
        answer = await by["administrator"].put("/policy", content=POLICY)
        assert answer.status_code == 200, answer.text
        users = app.state.users
        for name in PEOPLE:
            await users.arrive(Arrival(provider="local", subject=name, username=name))
        for name, become in (("dora", UserState.DISABLED), ("wanda", UserState.WAITING)):
            await users.change(name, lambda person, become=become: person.changed(state=become))
        await users.change("gast", lambda person: person.changed(kind=UserKind.GUEST))
        yield stand
