"""What every operation of the REST interface answers whom. A new one must be put here, or a test fails."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Whose(StrEnum):
    """For whom an operation is."""

    ALL = "all"  # without a token too
    SIGNED = "signed"  # without a token, but with what this service signed
    EVERYBODY = "everybody"  # who has a token and may be here
    OBJECT = "object"  # whoever sees the object that it names
    OWN = "own"  # only whose the object is
    ADMINISTRATORS = "administrators"
    LOGIN = "login"  # the hub's own login


@dataclass(frozen=True)
class Expected:
    """Who may, and what it then answers."""

    whose: Whose
    status: int = 200
    """For those who may."""
    body: Any = None
    """JSON; text as it is."""
    of: str = ""
    """What `{job_id}` and the like name: ``job``, ``run``, ``output``, ``file``."""
    query: Mapping[str, str] = field(default_factory=dict)
    also: Mapping[str, int] = field(default_factory=dict)
    """Roles that get another answer than the rest of their kind."""
    seen_by: tuple[str, ...] = ()
    """Roles for whom the object exists, where that is not said by the project it is in."""
    absent: Mapping[str, int] = field(default_factory=dict)
    """Roles that get another answer than 404 of what is not there."""
    streams: bool = False
    """It answers for ever; only its beginning is looked at."""

    def names(self, operation: str) -> list[str]:
        """Of what stands in the path, those that name the object."""
        found = re.findall(r"\{(\w+)\}", operation)
        return found[:1] if self.of != "output" else [name for name in found if name != "name"]


POLICY = """\
projects:
  lab: {members: [alice, carol], leads: [carol]}
  other: {members: [alice]}
"""


def job(status: int = 200, body: Any = None, of: str = "job", **more: Any) -> Expected:
    return Expected(Whose.OBJECT, status, body, of=of, **more)


def run(status: int = 200, body: Any = None, of: str = "run", **more: Any) -> Expected:
    return Expected(Whose.OBJECT, status, body, of=of, **more)


def administrators(status: int = 200, body: Any = None, **more: Any) -> Expected:
    return Expected(Whose.ADMINISTRATORS, status, body, **more)


def everybody(status: int = 200, body: Any = None, **more: Any) -> Expected:
    return Expected(Whose.EVERYBODY, status, body, **more)


def own(status: int = 200, body: Any = None, of: str = "", **more: Any) -> Expected:
    """Of what is its owner's alone; others do not see it, whatever they are."""
    return Expected(Whose.OWN, status, body, of, **more)


def guests(status: int = 200, body: Any = None, **more: Any) -> Expected:
    """What is done to a guest of a project: by administrators and its lead."""
    seen_by = ("administrator", "lead")
    return Expected(Whose.OBJECT, status, body, of="guest user", seen_by=seen_by, **more)


def leads(status: int = 200, body: Any = None) -> Expected:
    """What is done to a project. Its members see it; who leads another does not."""
    seen_by = ("administrator", "owner")
    return Expected(Whose.OBJECT, status, body, of="project", seen_by=seen_by, also={"owner": 403})


def everybodys(status: int = 200, body: Any = None, **more: Any) -> Expected:
    """Without a token too."""
    return Expected(Whose.ALL, status, body, **more)


def login(status: int = 200, body: Any = None, **more: Any) -> Expected:
    return Expected(Whose.LOGIN, status, body, **more)


WORKFLOW = {"workflow": {"steps": {"a": {"command": ["true"]}}}}
JOB = {"command": ["true"]}
NOT_FOR_OTHERS = {"lead": 403, "administrator": 403}
"""They see it, and are told that they may not do this with it."""
NO_PERSON = {"act-as": 403}
NO_ACCOUNT = {"act-as": 403, "guest": 403}
"""A service has no account under which jobs could run, nor has a guest who has not been given one."""
RESERVATION = {"nodes": ["n1"], "start": "2030-01-01T00:00:00Z", "end": "2030-01-02T00:00:00Z"}


def public_key(secret: bytes) -> str:
    """A line of ``authorized_keys`` (RFC 8709, section 4) whose key is these 32 bytes."""
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0 " + secret
    return f"ssh-ed25519 {b64encode(blob).decode()}"


TABLE: dict[str, Expected] = {
    # jobs
    "POST /jobs": everybody(201, JOB, also=NO_ACCOUNT),
    "GET /jobs": everybody(),
    "POST /jobs/bulk": everybody(201, [JOB], also=NO_ACCOUNT),
    "GET /jobs/{job_id}": job(),
    "PATCH /jobs/{job_id}": job(409, {"priority": 0}),
    "DELETE /jobs/{job_id}": job(204, of="ended job", also={"lead": 403}),
    "GET /jobs/{job_id}/events": job(),
    "GET /jobs/{job_id}/stats": job(),
    "GET /jobs/{job_id}/why": job(),
    "GET /jobs/{job_id}/usage": job(),
    "POST /jobs/{job_id}/kill": job(),
    "POST /jobs/{job_id}/hold": job(409),
    "POST /jobs/{job_id}/release": job(409),
    "POST /jobs/{job_id}/suspend": job(),
    "POST /jobs/{job_id}/resume": job(409),
    "POST /jobs/{job_id}/reschedule": job(),
    "POST /jobs/{job_id}/rerun": job(201, of="ended job", also=NOT_FOR_OTHERS),
    "POST /jobs/{job_id}/archive": job(of="ended job"),
    "POST /archive": everybody(200, {"older_than": "30d"}),
    "GET /jobs/{job_id}/logs": job(),
    "GET /jobs/{job_id}/outputs/{name}": job(of="output"),
    "GET /jobs/{job_id}/record": job(),
    # files
    "POST /files": everybody(201, "text"),
    "POST /files/missing": everybody(200, {"digests": []}),
    "POST /files/tree": everybody(201, {"entries": []}),
    "GET /files/{digest}": Expected(Whose.OBJECT, of="file"),
    "GET /store": everybody(),
    "POST /store/gc": administrators(200, {"dry_run": True}),
    "POST /files/sign": everybody(201, {"digest": "sha256:" + "1" * 64, "method": "PUT"}),
    "GET /files/signed/{token}": Expected(Whose.SIGNED),
    "PUT /files/signed/{token}": Expected(Whose.SIGNED, 201),
    "POST /files/signed/{token}": Expected(Whose.SIGNED, 201),
    # runs of workflows
    "POST /workflows": everybody(201, WORKFLOW, also=NO_ACCOUNT),
    "GET /workflows": everybody(),
    "GET /workflows/{number}": run(),
    "PATCH /workflows/{number}": run(409, {"priority": 0}, of="ended run"),
    "GET /workflows/{number}/steps": run(),
    "POST /workflows/{number}/kill": run(),
    "POST /workflows/{number}/hold": run(409, of="ended run"),
    "POST /workflows/{number}/release": run(409, of="ended run"),
    "POST /workflows/{number}/pin": run(),
    "POST /workflows/{number}/unpin": run(),
    "POST /workflows/{number}/resume": run(201, {}, of="ended run", also=NOT_FOR_OTHERS),
    "POST /workflows/{number}/rerun": run(201, {}, of="ended run", also=NOT_FOR_OTHERS),
    "GET /workflows/{number}/explain": run(),
    "POST /workflows/explain": everybody(200, WORKFLOW, also=NO_ACCOUNT),
    "GET /workflows/{number}/events": run(streams=True),
    "GET /workflows/{number}/steps/{label}/outputs/{name}": run(of="run's output"),
    "GET /workflows/{number}/record": run(),
    "GET /workflows/{number}/capsule": run(of="ended run"),
    "GET /workflows/{number}/crate": run(of="ended run"),
    # secrets
    "GET /secrets": everybody(),
    "PUT /secrets/{name}": everybody(200, "s3cret", of="secret"),
    "DELETE /secrets/{name}": own(204, of="secret"),
    "POST /secrets/rotate": administrators(),
    "GET /registries": everybody(),
    "PUT /registries/{name}": everybody(200, {"username": "u", "password": "p"}, of="registry"),
    "DELETE /registries/{name}": own(204, of="registry"),
    # the site
    "GET /events": everybody(streams=True),
    "GET /usage": everybody(),
    "GET /top": everybody(),
    "GET /share": everybody(),
    "GET /projects": everybody(),
    "GET /nodes": everybody(),
    "POST /nodes/{name}/drain": administrators(200, {}, of="node"),
    "POST /nodes/{name}/undrain": administrators(of="node"),
    "POST /nodes/{name}/remove": administrators(409, of="node"),
    "GET /nodes/join-tokens": administrators(),
    "POST /nodes/join-tokens": administrators(409, {"node": "n7"}),
    "DELETE /nodes/join-tokens/{node}": administrators(404),
    "POST /nodes/join": everybodys(422),
    "GET /policy": administrators(),
    "PUT /policy": administrators(200, POLICY),
    "POST /policy/check": administrators(200, POLICY),
    "GET /policy/versions": administrators(),
    "GET /reservations": everybody(),
    "PUT /reservations/{name}": administrators(200, RESERVATION, of="reservation"),
    "DELETE /reservations/{name}": administrators(204, of="reservation"),
    "GET /maintenance": everybody(),
    "PUT /maintenance": administrators(200, {"on": False}),
    "GET /audit": administrators(also={"lead": 200}),  # what was done to their project
    "GET /announcements": everybody(),
    "POST /announcements": administrators(201, {"text": "hello"}),
    "DELETE /announcements/{number}": administrators(204, of="announcement"),
    "GET /announcements/public": everybodys(),
    "GET /site": everybody(),
    "GET /me": everybody(),
    "GET /health": everybodys(),
    # images and volumes
    "GET /images": everybody(),
    "PUT /images/{name}": administrators(200, {"image": "perijove-notebook:latest"}, of="image"),
    "DELETE /images/{name}": administrators(204, of="image"),
    "GET /runenvs": everybody(),
    "GET /volumes": everybody(),
    "PUT /volumes/{name}": administrators(200, {"source": "/srv/data", "target": "/w{new}"}, of="volume"),
    "DELETE /volumes/{name}": administrators(204, of="volume"),
    # projects
    "PUT /projects/{name}": administrators(200, {"members": ["alice"]}, of="project"),
    "DELETE /projects/{name}": administrators(204, of="project"),
    "POST /projects/{name}/members": leads(200, {"user": "bob"}),
    "DELETE /projects/{name}/members/{user}": leads(200),
    "PUT /projects/{name}/member-limits": leads(200, {}),
    "PUT /projects/{name}/members/{user}/limits": leads(200, {}),
    "PUT /users/{name}/limits": administrators(200, {}, of="user"),
    # people
    "GET /users": everybody(),
    "POST /users": administrators(201, {"name": "n{new}"}),
    "GET /users/{name}": guests(),
    "POST /users/{name}/activate": guests(409),
    "POST /users/{name}/extend": guests(200),
    "POST /users/{name}/disable": guests(200),
    "POST /users/{name}/enable": guests(409),
    "POST /users/{name}/sign-out": guests(200, also={"lead": 403}),
    "POST /users/{name}/promote": administrators(200, of="guest user"),
    "POST /users/{name}/remove": administrators(200, of="guest user"),
    "POST /users/{name}/release": administrators(409, of="guest user"),
    "POST /users/{name}/link": administrators(200, {"provider": "x", "subject": "{new}"}, of="guest user"),
    "POST /users/{name}/unlink": administrators(409, {"provider": "x", "subject": "y"}, of="guest user"),
    "GET /invitations": everybody(),
    "POST /invitations": administrators(201, {"project": "lab"}, also={"lead": 201}),
    "DELETE /invitations/{number}": Expected(
        Whose.OBJECT, 204, of="invitation", seen_by=("administrator", "lead")
    ),
    "POST /arrivals": login(200, {"provider": "local", "subject": "x", "username": "newcomer"}),
    "GET /users/{name}/standing": login(of="user", also={"administrator": 200}),
    "GET /users/{name}/keys": own(of="user", also={"act-as": 200}, absent={"act-as": 200}),
    "POST /tokens": everybody(201, {"name": "laptop"}, also=NO_PERSON),
    "GET /tokens": everybody(),
    "DELETE /tokens/{number}": own(204, of="token", also={"administrator": 204}),
    "GET /keys": everybody(),
    "POST /keys": everybody(201, {"key": public_key(bytes(32))}),
    "DELETE /keys/{fingerprint}": own(204, of="key"),
    "POST /device/authorization": everybodys(),
    "POST /device/token": everybodys(400),
    "POST /device/revocation": everybodys(),
}
