"""Runs of workflows in the fake service, told of as by the real one; the test moves their steps."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from perijove.model import ConflictError, NotFoundError, Run, State, StepRun, StepState, parse_workflow
from perijove.model.parameters import parameter_values

BAD = {"failed", "lost", "killed", "rejected"}


class FakeRuns:
    """What is asked about workflows, and what a test does to them."""

    def __init__(self) -> None:
        self.runs: dict[int, dict[str, Any]] = {}
        self.steps: dict[int, dict[str, dict[str, Any]]] = {}
        self.told: list[tuple[int, int, str, dict[str, Any]]] = []
        """(number, run, name of the event, data); the numbers are in order."""

    def move(self, number: int, label: str, state: str, **fields: Any) -> None:
        """A step of the test's wish: ``train[3]`` makes an instance, and the step as a whole is gone then."""
        name, _, index = label.partition("[")
        steps = self.steps[number]
        if index:
            steps.pop(name, None)
        step = steps.get(label) or StepRun(step=name, index=int(index[:-1]) if index else None)
        given = step if isinstance(step, dict) else step.model_dump(mode="json")
        times = {"started": time.time()} if state == "running" else {}
        if state in {"succeeded", "failed"}:
            times = {"ended": time.time()}
        steps[label] = {**given, **times, "state": state, **fields}
        self.told.append((len(self.told), number, "step", steps[label]))
        run = self.runs[number]
        run["steps"] = Counter(each["state"] for each in steps.values())
        if all(each in {"succeeded", "cached", "skipped", *BAD} for each in run["steps"]):
            run["state"] = "failed" if BAD & set(run["steps"]) else "succeeded"
            run["ended"] = time.time()
        self._tell(number)

    def _tell(self, number: int) -> None:
        bare = {**self.runs[number], "workflow": None}
        self.told.append((len(self.told), number, "run", bare))

    def submit(self, body: dict[str, Any], **more: Any) -> dict[str, Any]:
        workflow = parse_workflow(body["workflow"])
        number = 100 + len(self.runs)
        run = Run(
            id=number,
            owner="me",
            name=workflow.name,
            state=State.HELD if body.get("hold") else State.RUNNING,
            parameters=parameter_values(workflow.parameters, body.get("parameters") or {}),
            submitted=time.time(),
            steps={StepState.WAITING: len(workflow.steps)},
            cache=body.get("cache") or "use",
            workflow=workflow,
            **more,
        )
        self.runs[number] = run.model_dump(mode="json")
        self.steps[number] = {name: StepRun(step=name).model_dump(mode="json") for name in workflow.steps}
        return self.runs[number]

    def find(self, request: Request) -> dict[str, Any]:
        number = int(request.path_params["id"])
        if number not in self.runs:
            raise NotFoundError(f"there is no run {number}")
        return self.runs[number]

    async def post(self, request: Request) -> Response:
        return JSONResponse(self.submit(await request.json()), 201)

    async def get_all(self, request: Request) -> Response:
        states = [one for part in request.query_params.getlist("state") for one in part.split(",")]
        found = [run for run in self.runs.values() if not states or run["state"] in states]
        return JSONResponse({"workflows": [{**run, "workflow": None} for run in found[::-1]], "next": None})

    async def get(self, request: Request) -> Response:
        return JSONResponse(self.find(request))

    async def get_steps(self, request: Request) -> Response:
        return JSONResponse({"steps": list(self.steps[self.find(request)["id"]].values()), "next": None})

    async def verb(self, request: Request) -> Response:
        run, verb = self.find(request), request.path_params["verb"]
        if verb == "resume":
            body = await request.json()
            given = {**run["parameters"], **body["parameters"]}
            again = {"workflow": run["workflow"], "parameters": given}
            return JSONResponse(self.submit(again, resumed_from=run["id"]), 201)
        if run["ended"]:
            raise ConflictError(f"run {run['id']} has ended already: {run['state']}")
        if verb == "kill":
            for label, step in list(self.steps[run["id"]].items()):
                if step["state"] not in {"succeeded", "cached", *BAD}:
                    self.move(run["id"], label, "killed")
            run["state"] = "killed"
        else:
            run["state"] = {"hold": "held", "release": "running"}[verb]
        self._tell(run["id"])
        return JSONResponse(run)

    async def get_events(self, request: Request) -> Response:
        run, last = self.find(request), request.headers.get("last-event-id")
        seen = int(last) if last else len(self.told) - 1
        return StreamingResponse(self._events(run["id"], seen), media_type="text/event-stream")

    async def _events(self, number: int, seen: int) -> AsyncIterator[str]:
        yield ": hello\n\n"
        while True:
            for at, run, name, data in self.told[seen + 1 :]:
                seen = at
                if run == number:
                    yield f"id: {at}\nevent: {name}\ndata: {json.dumps(data)}\n\n"
            await asyncio.sleep(0.05)

    def routes(self) -> list[tuple[str, Any, str]]:
        return [
            ("/workflows", self.post, "POST"),
            ("/workflows", self.get_all, "GET"),
            ("/workflows/{id}", self.get, "GET"),
            ("/workflows/{id}/steps", self.get_steps, "GET"),
            ("/workflows/{id}/events", self.get_events, "GET"),
            ("/workflows/{id}/{verb}", self.verb, "POST"),
        ]
