"""A real small service: the REST interface over an in-memory store, running jobs as plain processes.

One job at a time is placed per free core of an imagined node, so that queues, reasons and kills can be seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.kernel.fake_runs import FakeRuns
from tests.kernel.fake_site import TOKEN, FakeSite

from perijove.model import (
    ConflictError,
    FieldError,
    InvalidSpecError,
    JobSpec,
    NotFoundError,
    PerijoveError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    parse_duration,
)

ENDED = {"succeeded", "failed", "killed", "rejected", "lost"}
ON_NODE = {"starting", "running", "suspended"}
UPDATABLE = {"time_limit", "priority", "cpu", "memory", "name", "partition"}
LARGEST = 20 << 20


@dataclass
class Held:
    """One job: its record and its process."""

    record: dict[str, Any]
    directory: Path
    process: asyncio.subprocess.Process | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    idle: str = "pending"
    """Of an array: the state of its members that are no jobs yet."""


class FakeService(FakeSite):
    def __init__(self, root: Path, cores: float = 4.0) -> None:
        super().__init__()
        self.root, self.cores = root, cores
        self.last_id = 0
        self.jobs: dict[int, Held] = {}
        self.files: dict[str, bytes] = {}
        self.submissions: dict[str, int] = {}
        self.seq = 0
        self.changed = asyncio.Condition()
        self.tasks: set[asyncio.Task[None]] = set()
        self.requests: list[tuple[str, str]] = []
        self.break_streams_after: int | None = None
        self.runs = FakeRuns()

    # transitions

    async def change(self, job: Held, event: str, **values: Any) -> None:
        job.record.update(values)
        self.seq += 1
        entry = {
            "seq": self.seq,
            "job": job.record["id"],
            "owner": "me",
            "at": time.time(),
            "event": event,
            "state": job.record["state"],
            "attempt": job.record["attempt"],
            "detail": {},
        }
        job.events.append({"event": entry, "job": json.loads(json.dumps(job.record))})
        if (array := job.record["array_id"]) is not None:
            await self.count(self.jobs[array])
        async with self.changed:
            self.changed.notify_all()

    async def submit(self, raw: Any) -> Held:
        spec = self.validated(raw)
        self.last_id += 1
        job = self.jobs[self.last_id] = self.held(self.last_id, spec)
        if spec.array is not None:
            self.last_id += len(spec.array.tasks)
            job.idle = job.record["state"]
            job.record["tasks"] = {job.idle: len(spec.array.tasks)}
        await self.change(job, "submitted")
        await self.place()
        return job

    def held(self, number: int, spec: JobSpec) -> Held:
        directory = self.root / "attempts" / f"{number}.1" / "job"
        directory.mkdir(parents=True)
        record = {
            "id": number,
            "owner": "me",
            "name": spec.title,
            "state": "held" if spec.hold else "pending",
            "reason": {
                "code": "JobHeldUser" if spec.hold else "Priority",
                "message": "waits",
                "position": None,
            },
            "attempt": 0,
            "exit_code": None,
            "node": None,
            "launcher": "process",
            "submitted": time.time(),
            "started": None,
            "ended": None,
            "outputs": {},
            "tasks": {},
            "array_id": None,
            "array_task": None,
            "spec": spec.model_dump(mode="json"),
        }
        return Held(record, directory)

    # arrays: members are jobs from their start on

    def members(self, group: Held) -> list[Held]:
        wanted = group.record["id"]
        return [job for job in self.jobs.values() if job.record["array_id"] == wanted]

    def member(self, group: Held, task: int) -> Held:
        """The member, made a job of its own if it is none yet."""
        spec = JobSpec.model_validate(group.record["spec"])
        assert spec.array is not None
        number = group.record["id"] + 1 + spec.array.tasks.index(task)
        if number not in self.jobs:
            job = self.jobs[number] = self.held(number, spec)
            job.record.update(array_id=group.record["id"], array_task=task, state=group.idle)
            job.record["ended"] = group.record["ended"]
        return self.jobs[number]

    def waiting_tasks(self, group: Held) -> list[int]:
        array = JobSpec.model_validate(group.record["spec"]).array
        assert array is not None
        known = {job.record["array_task"] for job in self.members(group)}
        return [task for task in array.tasks if task not in known]

    async def count(self, group: Held) -> None:
        """The array's counts and state, after one of its members has changed."""
        rest = len(self.waiting_tasks(group))
        counts = Counter(job.record["state"] for job in self.members(group)) + Counter({group.idle: rest})
        order = ("running", "starting", "suspended", "pending", "held", "failed", "killed", "succeeded")
        state = next(state for state in order if counts.get(state))
        state = "running" if state == "starting" else state
        changes: dict[str, Any] = {"tasks": dict(counts), "state": state}
        if state in ENDED:
            changes["ended"] = time.time()
        await self.change(group, "members", **changes)

    def validated(self, raw: Any) -> JobSpec:
        try:
            spec = JobSpec.model_validate(raw)
        except ValidationError as error:
            fields = [
                FieldError(".".join(map(str, e["loc"])), str(e.get("input"))[:80], e["msg"])
                for e in error.errors()
            ]
            raise InvalidSpecError(errors=fields) from None
        if spec.gpus.count > 2:
            text = f"no node has {spec.gpus.count} GPUs; the largest has 2"
            raise InvalidSpecError(errors=[FieldError("gpus", str(spec.gpus.count), text)])
        if missing := [d for d in spec.inputs.values() if d not in self.files]:
            raise InvalidSpecError(errors=[FieldError("inputs", missing[0], "no such file")])
        return spec

    async def place(self) -> None:
        busy = sum(
            j.record["spec"]["cpu"]
            for j in self.jobs.values()
            if j.record["state"] in ON_NODE and not is_group(j)
        )
        for group in [j for j in self.jobs.values() if is_group(j)]:
            if group.idle == "pending" and not self.maintained["on"]:
                limit = group.record["spec"]["array"]["limit"] or 1 << 60
                on = sum(job.record["state"] in {"pending", *ON_NODE} for job in self.members(group))
                need = group.record["spec"]["cpu"]
                room = max(0, min(limit - on, int((self.cores - busy) / need)))
                for number in self.waiting_tasks(group)[:room]:
                    self.member(group, number)
        waiting = [j for j in self.jobs.values() if j.record["state"] == "pending" and not is_group(j)]
        for position, job in enumerate(waiting, 1):
            need = job.record["spec"]["cpu"]
            reason: dict[str, Any]
            if self.maintained["on"]:
                reason = {"code": "Maintenance", "message": f"maintenance: {self.maintained['reason']}"}
                await self.change(job, "waits", reason=reason)
            elif busy + need <= self.cores:
                busy += need
                task = asyncio.create_task(self.run(job))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
                job.record["state"] = "starting"
            else:
                reason = {"code": "Resources", "message": "all nodes are full", "position": position}
                reason["blockers"] = [
                    {"kind": "job", "name": label(j), "message": f"job {label(j)} of me runs on here"}
                    for j in self.jobs.values()
                    if j.record["state"] == "running" and not is_group(j)
                ]
                await self.change(job, "waits", reason=reason)

    async def run(self, job: Held) -> None:
        spec = job.record["spec"]
        for name, digest in spec["inputs"].items():
            (job.directory / "input").mkdir(exist_ok=True)
            (job.directory / "input" / name).write_bytes(self.files[digest])
        command = spec["command"]
        if spec["script"] is not None:
            script = job.directory / "script"
            script.write_text(spec["script"])
            script.chmod(0o700)
            command = [str(script) if spec["script"].startswith("#!") else "/bin/bash"]
            command += [] if spec["script"].startswith("#!") else [str(script)]
            command += spec["args"]
        env = {**os.environ, **spec["env"], "PERIJOVE_JOB_DIR": str(job.directory)}
        env["PERIJOVE_JOB_ID"] = str(job.record["id"])
        env["PERIJOVE_TASK_ID"] = str(job.record["array_task"])
        for name in ("PERIJOVE_URL", "PERIJOVE_TOKEN"):
            env.pop(name, None)
        folder = job.directory.parent
        attempt = job.record["attempt"] + 1
        await self.change(job, "placed", state="starting", attempt=attempt, node="here", reason=None)
        try:
            with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
                job.process = await asyncio.create_subprocess_exec(
                    *command,
                    stdout=out,
                    stderr=err,
                    env=env,
                    cwd=spec["cwd"] or str(Path.home()),
                    start_new_session=True,
                )
        except OSError as error:
            reason = {"code": "JobLaunchFailure", "message": str(error)}
            await self.change(job, "ended", state="failed", reason=reason, ended=time.time())
            return
        await self.change(job, "started", state="running", started=time.time())
        code = await job.process.wait()
        await self.finish(job, 128 - code if code < 0 else code)
        await self.place()

    async def finish(self, job: Held, code: int) -> None:
        outputs = {}
        for name in job.record["spec"]["outputs"]:
            path = job.directory / "output" / name
            if path.is_file():
                digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
                self.files[digest] = path.read_bytes()
                outputs[name] = digest
        values, failure = self.recorded(job)
        state, reason = (
            ("succeeded", None)
            if code == 0
            else ("failed", {"code": "NonZeroExitCode", "message": failure or f"exit code {code}"})
        )
        if job.record.pop("requeue_requested", False):
            job.process = None
            await self.change(job, "requeued", state="pending", started=None, node=None)
            return
        if job.record.get("kill_requested"):
            state, reason = "killed", {"code": "KilledByUser", "message": "killed by me"}
        elif code == 0 and len(outputs) < len(job.record["spec"]["outputs"]):
            state, reason = "failed", {"code": "OutputMissing", "message": "an output is missing"}
        await self.change(
            job,
            "ended",
            state=state,
            exit_code=code,
            reason=reason,
            ended=time.time(),
            outputs=outputs,
            values=values,
        )

    def recorded(self, job: Held) -> tuple[dict[str, Any], str]:
        path = job.directory / "output" / ".recorded.jsonl"
        lines = [json.loads(line) for line in path.open()] if path.exists() else []
        values = {line["name"]: line["value"] for line in lines if "name" in line}
        return values, "".join(line["failure"] for line in lines[-1:] if "failure" in line)

    async def act(self, job: Held, verb: str) -> None:
        if is_group(job):
            await self.act_on_group(job, verb)
            return
        state, group = job.record["state"], job.process and job.process.pid
        if verb == "archive":
            if not job.record["ended"]:
                raise ConflictError(f"job {label(job)} is {state}; only an ended one can be archived")
            await self.change(job, "archived", archived=True)
            return
        if job.record["ended"]:
            raise ConflictError(f"job {label(job)} has ended already: {state}")
        if verb in {"kill", "reschedule"} and group:
            job.record["kill_requested" if verb == "kill" else "requeue_requested"] = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)
                os.killpg(group, signal.SIGCONT)
        elif verb == "kill":
            reason = {"code": "KilledByUser", "message": "killed by me"}
            await self.change(job, "ended", state="killed", reason=reason, ended=time.time())
        elif (verb, state) in {("hold", "pending"), ("release", "held")}:
            await self.change(job, verb, state="held" if verb == "hold" else "pending")
            await self.place()
        elif group and (verb, state) in {("suspend", "running"), ("resume", "suspended")}:
            os.killpg(group, signal.SIGSTOP if verb == "suspend" else signal.SIGCONT)
            await self.change(job, verb, state="suspended" if verb == "suspend" else "running")
        else:
            raise ConflictError(f"a job that is {state} cannot be asked to {verb}")

    async def act_on_group(self, group: Held, verb: str) -> None:
        if group.record["ended"] and verb != "archive":
            raise ConflictError(f"job {label(group)} has ended already: {group.record['state']}")
        if verb in {"kill", "hold", "release"}:
            group.idle = {"kill": "killed", "hold": "held", "release": "pending"}[verb]
        for member in self.members(group):
            with contextlib.suppress(ConflictError):
                await self.act(member, verb)
        await self.count(group)
        await self.place()

    def find(self, request: Request) -> Held:
        given = str(request.path_params.get("id") or request.query_params.get("job"))
        number, _, task = given.partition("_")
        try:
            job = self.jobs[int(number)]
            return self.member(job, int(task)) if task else job
        except (KeyError, ValueError):
            raise NotFoundError(f"there is no job {given}") from None

    def log(self, job: Held, stream: str) -> Path:
        if stream == "display":
            return job.directory / "display.jsonl"
        return job.directory.parent / stream

    # endpoints

    async def post_job(self, request: Request) -> Response:
        key = request.headers.get("idempotency-key", "")
        if key not in self.submissions:
            self.submissions[key] = (await self.submit(await request.json())).record["id"]
        return JSONResponse(self.jobs[self.submissions[key]].record, 201)

    async def post_bulk(self, request: Request) -> Response:
        specs = await request.json()
        for spec in specs:
            self.validated(spec)
        return JSONResponse([(await self.submit(spec)).record for spec in specs], 201)

    async def get_jobs(self, request: Request) -> Response:
        query = request.query_params
        states = query.getlist("state")
        before = int(query.get("before") or 1 << 60)
        limit = int(query.get("limit") or 100)
        array = int(query["array"]) if "array" in query else None
        found = [
            job.record
            for number, job in sorted(self.jobs.items(), reverse=True)
            if number < before
            and job.record["array_id"] == array
            and (not states or job.record["state"] in states)
            and query.get("name", job.record["name"]) == job.record["name"]
        ]
        more = found[limit - 1]["id"] if len(found) > limit else None
        return JSONResponse({"jobs": found[:limit], "next": more})

    async def get_job(self, request: Request) -> Response:
        return JSONResponse(self.find(request).record)

    async def post_verb(self, request: Request) -> Response:
        job, verb = self.find(request), request.path_params["verb"]
        await self.act(job, verb)
        if verb == "kill" and request.query_params.get("dependants") == "true":
            for other in list(self.jobs.values()):
                waits_for = {d["job"] for d in other.record["spec"]["depends_on"]}
                if job.record["id"] in waits_for and not other.record["ended"]:
                    await self.act(other, "kill")
        return JSONResponse(job.record)

    async def post_rerun(self, request: Request) -> Response:
        job = self.find(request)
        if not job.record["ended"]:
            raise ConflictError(f"job {label(job)} has not ended")
        again = await self.submit({**job.record["spec"], "hold": False})
        again.record["rerun_of"] = job.record["id"]
        return JSONResponse(again.record, 201)

    async def patch_job(self, request: Request) -> Response:
        job, given = self.find(request), await request.json()
        wanted = {{"time": "time_limit", "cpus": "cpu"}.get(key, key): value for key, value in given.items()}
        if job.record["ended"]:
            raise ConflictError(f"job {label(job)} has ended already")
        if unknown := wanted.keys() - UPDATABLE:
            text = f"cannot be changed later; can be: {', '.join(sorted(UPDATABLE))}"
            raise InvalidSpecError(errors=[FieldError(min(unknown), "", text)])
        job.record["spec"] = self.validated({**job.record["spec"], **wanted}).model_dump(mode="json")
        await self.change(job, "changed", name=job.record["spec"]["name"] or job.record["name"])
        return JSONResponse(job.record)

    async def delete_job(self, request: Request) -> Response:
        job = self.find(request)
        if not job.record["ended"]:
            raise ConflictError(
                f"job {label(job)} is {job.record['state']}; only an ended one can be removed"
            )
        del self.jobs[job.record["id"]]
        return Response(status_code=204)

    async def get_why(self, request: Request) -> Response:
        job = self.find(request)
        waits = job.record["state"] in {"pending", "held"}
        reason = job.record["reason"]
        full = waits and reason and reason["code"] == "Resources"
        soon = {"earliest": time.time() + 60, "likely": time.time() + 120, "latest": time.time() + 600}
        need = job.record["spec"]["cpu"]
        hint = {"changes": {"cpu": need / 4}, "message": f"with --cpus {need / 4:g} it would start now"}
        answer = {"job": job.record, "reason": reason, "forecast": soon if full else None}
        return JSONResponse({**answer, "hints": [hint] if full else []})

    async def get_usage_of(self, request: Request) -> Response:
        spec = self.find(request).record["spec"]
        return JSONResponse(
            {
                "cpu": {"asked": 100.0, "used": 62.0, "efficiency": 0.62},
                "memory": {"asked": spec["memory"], "used": 64 << 20, "efficiency": 0.0625},
                "gpu": {"asked": 0.0, "used": 0.0, "efficiency": None},
                "time": {"asked": 0.0, "used": 1.0, "efficiency": None},
            }
        )

    async def post_archive(self, request: Request) -> Response:
        which = await request.json()
        limit = time.time() - parse_duration(which["older_than"])
        found = [
            job
            for job in self.jobs.values()
            if job.record["ended"] and job.record["ended"] < limit and not job.record.get("archived")
        ]
        found = [job for job in found if not which["state"] or job.record["state"] in which["state"]]
        for job in found:
            job.record["archived"] = True
        return JSONResponse({"jobs": len(found), "more": False})

    async def get_top(self, _: Request) -> Response:
        stats = {"cpu": 0.5, "memory": 64 << 20, "memory_peak": 64 << 20, "gpu": 0.0}
        running = [j.record for j in self.jobs.values() if j.record["state"] == "running" and not is_group(j)]
        return JSONResponse([{"job": record, "stats": stats} for record in running])

    async def get_logs(self, request: Request) -> Response:
        job, query = self.find(request), request.query_params
        path = self.log(job, query.get("stream", "stdout"))
        offset = int(request.headers.get("last-event-id") or query.get("offset") or 0)
        if query.get("follow") == "true":
            return StreamingResponse(self.follow(job, path, offset), media_type="text/event-stream")
        data = path.read_bytes() if path.exists() else b""
        return Response(data[offset : offset + int(query.get("limit") or 1 << 20)])

    async def follow(self, job: Held, path: Path, offset: int) -> AsyncIterator[str]:
        sent = 0
        while True:
            ended = bool(job.record["ended"])
            data = _behind(path, offset)
            cut = data.rfind(b"\n") + 1 or len(data)
            if data:
                offset += cut
                text = data[:cut].decode(errors="surrogateescape")
                yield f"id: {offset}\nevent: chunk\ndata: {json.dumps({'text': text})}\n\n"
                sent += 1
                if self.break_streams_after is not None and sent >= self.break_streams_after:
                    return
            elif ended:
                yield f"event: end\ndata: {json.dumps({'state': job.record['state']})}\n\n"
                return
            else:
                await asyncio.sleep(0.02)

    async def get_events(self, request: Request) -> Response:
        wanted = self.find(request).record["id"] if request.query_params.get("job") else None
        return StreamingResponse(
            self.changes(wanted, request.headers.get("last-event-id")),
            media_type="text/event-stream",
        )

    async def changes(self, wanted: int | None, last: str | None) -> AsyncIterator[str]:
        seen = int(last) if last else self.seq
        yield ": hello\n\n"
        while True:
            fresh = [
                event
                for job in self.jobs.values()
                for event in job.events
                if event["event"]["seq"] > seen and wanted in {None, event["event"]["job"]}
            ]
            for event in sorted(fresh, key=lambda e: e["event"]["seq"]):
                seen = event["event"]["seq"]
                yield f"id: {seen}\nevent: job\ndata: {json.dumps(event)}\n\n"
            async with self.changed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), 0.2)

    async def get_stats(self, request: Request) -> Response:
        running = self.find(request).record["state"] == "running"
        return JSONResponse(
            {"cpu": 0.5 * running, "memory": (64 << 20) * running, "memory_peak": 64 << 20, "pids": 1}
        )

    async def get_output(self, request: Request) -> Response:
        outputs = self.find(request).record["outputs"]
        if request.path_params["name"] not in outputs:
            raise NotFoundError("the job has no such output")
        return Response(self.files[outputs[request.path_params["name"]]])

    async def get_history(self, request: Request) -> Response:
        return JSONResponse([event["event"] for event in self.find(request).events])

    async def post_missing(self, request: Request) -> Response:
        wanted = (await request.json())["digests"]
        return JSONResponse({"missing": [digest for digest in wanted if digest not in self.files]})

    async def post_file(self, request: Request) -> Response:
        data = await request.body()
        if len(data) > LARGEST:
            raise TooLargeError(f"at most {LARGEST} bytes")
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.files[digest] = data
        return JSONResponse({"digest": digest, "size": len(data)}, 201)

    async def get_site(self, _: Request) -> Response:
        return JSONResponse({"launchers": [{"name": "process", "containers": False}], "default_image": None})

    async def get_me(self, _: Request) -> Response:
        return JSONResponse({"name": "me", "admin": False, "home": str(Path.home())})

    async def get_health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    def app(self) -> Starlette:
        async def guard(request: Request, call_next: Any) -> Response:
            self.requests.append((request.method, request.url.path))
            if self.leader:
                told = UnavailableError("another service leads").problem()
                return JSONResponse(told, 503, headers={"Perijove-Leader": self.leader})
            if (
                request.url.path != "/api/v1/health"
                and request.headers.get("authorization") != f"Bearer {TOKEN}"
            ):
                return _problem(UnauthorizedError())
            answer: Response = await call_next(request)
            return answer

        routes = [
            ("/jobs", self.post_job, "POST"),
            ("/jobs", self.get_jobs, "GET"),
            ("/jobs/bulk", self.post_bulk, "POST"),
            ("/jobs/{id}", self.get_job, "GET"),
            ("/jobs/{id}", self.patch_job, "PATCH"),
            ("/jobs/{id}", self.delete_job, "DELETE"),
            ("/jobs/{id}/why", self.get_why, "GET"),
            ("/jobs/{id}/usage", self.get_usage_of, "GET"),
            ("/jobs/{id}/rerun", self.post_rerun, "POST"),
            ("/archive", self.post_archive, "POST"),
            ("/top", self.get_top, "GET"),
            *self.site_routes(),
            *self.runs.routes(),
            ("/jobs/{id}/logs", self.get_logs, "GET"),
            ("/jobs/{id}/stats", self.get_stats, "GET"),
            ("/jobs/{id}/events", self.get_history, "GET"),
            ("/jobs/{id}/outputs/{name}", self.get_output, "GET"),
            ("/jobs/{id}/{verb}", self.post_verb, "POST"),
            ("/events", self.get_events, "GET"),
            ("/files", self.post_file, "POST"),
            ("/files/missing", self.post_missing, "POST"),
            ("/site", self.get_site, "GET"),
            ("/me", self.get_me, "GET"),
            ("/health", self.get_health, "GET"),
        ]
        app = Starlette(
            routes=[Route(f"/api/v1{path}", endpoint, methods=[method]) for path, endpoint, method in routes],
            exception_handlers={PerijoveError: lambda _, error: _problem(error)},
        )
        app.add_middleware(BaseHTTPMiddleware, dispatch=guard)
        return app


def is_group(job: Held) -> bool:
    return job.record["spec"]["array"] is not None and job.record["array_id"] is None


def label(job: Held) -> str:
    array = job.record["array_id"]
    return str(job.record["id"]) if array is None else f"{array}_{job.record['array_task']}"


def _behind(path: Path, offset: int) -> bytes:
    return path.read_bytes()[offset:] if path.exists() else b""


def _problem(error: Any) -> Response:
    return JSONResponse(error.problem(), error.status, media_type="application/problem+json")


@contextmanager
def serving(root: Path, *, cores: float = 4.0, port: int = 0) -> Iterator[tuple[str, FakeService]]:
    """The service on a loopback port for as long as the context lasts."""
    service: list[FakeService] = []
    server: list[uvicorn.Server] = []
    ready = threading.Event()

    async def main() -> None:
        service.append(FakeService(root, cores))
        config = uvicorn.Config(service[0].app(), port=port, log_level="warning", timeout_graceful_shutdown=1)
        server.append(uvicorn.Server(config))
        serve = asyncio.create_task(server[0].serve())
        while not server[0].started and not serve.done():
            await asyncio.sleep(0.01)
        ready.set()
        await serve
        for job in service[0].jobs.values():
            if job.process and job.process.returncode is None:
                os.killpg(job.process.pid, signal.SIGKILL)

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(10)
    bound = server[0].servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{bound}", service[0]
    finally:
        server[0].should_exit = True
        thread.join(10)
