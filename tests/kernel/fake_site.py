"""The part of the fake service that is about the site and not about a job."""

from __future__ import annotations

import difflib
import time
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from perijove.model import FieldError, InvalidSpecError, NotFoundError

TOKEN = "token-of-the-fake"
AMOUNTS = {
    "pending": 2,
    "running": 1,
    "cpus": 4.0,
    "memory": 8 << 30,
    "gpus": 0,
    "disk": 0,
    "cpu_hours": 12.5,
    "memory_hours": 25.0,
    "gpu_hours": 0.0,
}


class FakeSite:
    cores: float

    def __init__(self) -> None:
        self.leader = ""
        self.maintained: dict[str, Any] = {"on": False, "reason": ""}
        self.kept: dict[str, dict[str, Any]] = {}
        self.policies = ["scheduler: fairshare\n"]
        self.drained: str | None = None

    async def place(self) -> None:
        raise NotImplementedError

    def site_routes(self) -> list[tuple[str, Any, str]]:
        return [
            ("/usage", self.get_usage, "GET"),
            ("/share", self.get_share, "GET"),
            ("/projects", self.get_projects, "GET"),
            ("/policy", self.get_policy, "GET"),
            ("/policy", self.put_policy, "PUT"),
            ("/policy/check", self.check_policy, "POST"),
            ("/policy/versions", self.get_versions, "GET"),
            ("/reservations", self.get_reservations, "GET"),
            ("/reservations/{name}", self.put_reservation, "PUT"),
            ("/reservations/{name}", self.delete_reservation, "DELETE"),
            ("/maintenance", self.get_maintenance, "GET"),
            ("/maintenance", self.put_maintenance, "PUT"),
            ("/nodes", self.get_nodes, "GET"),
            ("/nodes/{name}/{verb}", self.post_node, "POST"),
        ]

    async def get_usage(self, request: Request) -> Response:
        axes = request.query_params.get("by", "owner").split(",")
        known = {"owner": "me", "project": "lab", "day": "2026-07-31", "image": None, "node": "here"}
        if unknown := [axis for axis in axes if axis not in known]:
            raise InvalidSpecError(errors=[FieldError("by", unknown[0], "no such axis")])
        sums = {"jobs": 3, "cpu_hours": 12.5, "memory_hours": 100.0, "gpu_hours": 0.0}
        return JSONResponse([{**{axis: known[axis] for axis in axes}, **sums}])

    async def get_share(self, _: Request) -> Response:
        row = {"owner": "me", "project": None, "shares": 1.0, "usage": 12.5, "target": 0.25, "actual": 0.5}
        return JSONResponse([{**row, "factor": 0.25}])

    async def get_projects(self, _: Request) -> Response:
        lab = {"name": "lab", "description": "the lab", "leads": ["me"], "lead": True, "default": True}
        limits = {"limits": {"cpus": 64.0, "memory": 1 << 40}, "member_limits": {"running": 10}}
        rest = {"volumes": ["data"], "max_time": 86400.0, "used": AMOUNTS, "mine": AMOUNTS}
        return JSONResponse([{**lab, **limits, **rest}])

    async def get_policy(self, request: Request) -> Response:
        version = int(request.query_params.get("version") or len(self.policies))
        if not 1 <= version <= len(self.policies):
            raise NotFoundError(f"there is no version {version} of the policy")
        return PlainTextResponse(self.policies[version - 1], media_type="text/yaml")

    async def put_policy(self, request: Request) -> Response:
        text = self.accepted(await request.body())
        self.policies.append(text)
        return PlainTextResponse(text, media_type="text/yaml")

    async def check_policy(self, request: Request) -> Response:
        text = self.accepted(await request.body())
        lines = difflib.unified_diff(self.policies[-1].splitlines(), text.splitlines(), lineterm="")
        return JSONResponse({"valid": True, "difference": list(lines)})

    def accepted(self, body: bytes) -> str:
        content = yaml.safe_load(body)
        if not isinstance(content, dict) or content.keys() - {"scheduler", "spread"}:
            raise InvalidSpecError(errors=[FieldError("schedular", "fifo", "no such field")])
        return body.decode()

    async def get_versions(self, _: Request) -> Response:
        found = [{"version": n, "at": time.time(), "by": "me"} for n in range(1, len(self.policies) + 1)]
        return JSONResponse(found[::-1])

    async def get_reservations(self, _: Request) -> Response:
        return JSONResponse(list(self.kept.values()))

    async def put_reservation(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.kept[name] = {"name": name, "mine": False, **await request.json()}
        return JSONResponse(self.kept[name])

    async def delete_reservation(self, request: Request) -> Response:
        if self.kept.pop(request.path_params["name"], None) is None:
            raise NotFoundError(f"there is no reservation {request.path_params['name']}")
        return Response(status_code=204)

    async def get_maintenance(self, _: Request) -> Response:
        return JSONResponse(self.maintained)

    async def put_maintenance(self, request: Request) -> Response:
        self.maintained = await request.json()
        await self.place()
        return JSONResponse(self.maintained)

    async def get_nodes(self, _: Request) -> Response:
        return JSONResponse([self.node()])

    def node(self) -> dict[str, Any]:
        state = "up" if self.drained is None else "drain"
        node = {"name": "here", "cpus": self.cores, "memory": 8 << 30, "launchers": [], "state": state}
        free = {"cpu": self.cores, "memory": 8 << 30, "gpus": 0}
        return {"node": {**node, "reason": self.drained or ""}, "free": free, "jobs": 0}

    async def post_node(self, request: Request) -> Response:
        if request.path_params["name"] != "here":
            raise NotFoundError(f"there is no node {request.path_params['name']}; there are: here")
        drain = request.path_params["verb"] == "drain"
        self.drained = (await request.json())["reason"] if drain else None
        return JSONResponse(self.node())
