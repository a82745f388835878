"""What is asked of the service about workflows."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from perijove.site import Document, SiteRequests

if TYPE_CHECKING:
    from perijove.client import AsyncClient
    from perijove.events import Event
    from perijove.runs import AsyncRun

RunVerb = Literal["kill", "hold", "release", "pin", "unpin"]
Cache = Literal["use", "refresh", "off"]
PAGE = 1000
"""Steps asked for at once."""


class WorkflowRequests(SiteRequests):
    """The part of the client that is about workflows."""

    async def submit_workflow(
        self,
        workflow: Mapping[str, Any],
        parameters: Mapping[str, Any] | None = None,
        *,
        cache: Cache = "use",
        **how: Any,
    ) -> AsyncRun:
        """Start a run of a workflow's document; returns when the service has it durably.

        What lies on the client's side must have been imported, see :func:`perijove.importing.frozen`.
        `cache`: ``use`` results of equal steps, ``refresh`` them, or do without (``off``). `how`: ``hold``,
        ``priority``, ``project``, ``fail_fast``, ``labels``.
        """
        return self._run(await self.post_once("/workflows", _body(workflow, parameters, cache, how)))

    async def plan_workflow(
        self,
        workflow: Mapping[str, Any],
        parameters: Mapping[str, Any] | None = None,
        *,
        cache: Cache = "use",
        **how: Any,
    ) -> Document:
        """What a run would do, without starting one: of each step whether it would run, and why."""
        body = _body(workflow, parameters, cache, how)
        return dict(await self.request_json("POST", "/workflows/explain", body=body))

    async def workflow(self, run_id: int | str) -> AsyncRun:
        """The run of this id."""
        return self._run(await self.run_document(run_id))

    async def run_document(self, run_id: int | str) -> Document:
        """The same as the service's document."""
        return await self._get(_path(run_id))

    async def workflows(
        self,
        *,
        state: str | Sequence[str] | None = None,
        owner: str | None = None,
        limit: int = 100,
    ) -> list[AsyncRun]:
        """At most `limit` runs of workflows, newest first."""
        states = [state] if isinstance(state, str) else list(state or ())
        found: list[AsyncRun] = []
        before: int | None = None
        while len(found) < limit:
            params = {"state": states, "owner": owner, "before": before}
            page = await self._get_page("/workflows", {**params, "limit": min(limit - len(found), 500)})
            found += [self._run(record) for record in page["workflows"]]
            before = page.get("next")
            if before is None or not page["workflows"]:
                break
        return found[:limit]

    async def run_steps(
        self,
        run_id: int | str,
        *,
        state: str | None = None,
        step: str | None = None,
        limit: int = sys.maxsize,
    ) -> list[Document]:
        """The steps of a run as far as they are known, in the workflow's order."""
        found: list[Document] = []
        after: Any = None
        while len(found) < limit:
            params = {"state": state, "step": step, "limit": min(PAGE, limit - len(found)), "after": after}
            page = await self._get_page(f"{_path(run_id)}/steps", params)
            found += page["steps"]
            after = page.get("next")
            if after is None or not page["steps"]:
                break
        return found

    async def act_on_run(self, run_id: int | str, verb: RunVerb) -> Document:
        """Do something to a run as a whole; its new record."""
        return dict(await self.request_json("POST", f"{_path(run_id)}/{verb}"))

    async def update_run(self, run_id: int | str, fields: Mapping[str, Any]) -> Document:
        """Change a run that goes on: its ``priority``; its new record."""
        return dict(await self.request_json("PATCH", _path(run_id), body=dict(fields)))

    async def resume_run(
        self, run_id: int | str, parameters: Mapping[str, Any] | None = None, *, cache: Cache = "use"
    ) -> AsyncRun:
        """Run again what did not succeed, as a new run that takes the results of the others.

        `parameters` that are given replace those of before; what depends on them is run again.
        """
        body = {"parameters": dict(parameters or {}), "cache": cache}
        return self._run(await self.post_once(f"{_path(run_id)}/resume", body))

    async def explain_run(self, run_id: int | str) -> list[Document]:
        """Of each step: ``label``, ``state``, ``cached_from`` (a run) or the ``causes`` for which it ran."""
        return list((await self._get(f"{_path(run_id)}/explain"))["steps"])

    async def record_of(self, kind: Literal["jobs", "workflows"], number: int | str) -> Any:
        """The result record of a job, or those of a run's steps."""
        return await self.request_json("GET", f"/{kind}/{quote(str(number), safe='')}/record")

    async def capsule(self, run_id: int | str, *, data: bool = False, crate: bool = False) -> bytes:
        """A run as a file that others can run again; `data`: with its inputs; `crate`: as an RO-Crate."""
        params = {"data": "true"} if data else None
        return (
            await self.request("GET", f"{_path(run_id)}/{'crate' if crate else 'capsule'}", params)
        ).content

    async def step_output(self, run_id: int | str, label: str, name: str) -> bytes:
        """What a step made under this name."""
        path = f"{_path(run_id)}/steps/{quote(label, safe='')}/outputs/{quote(name, safe='')}"
        return (await self.request("GET", path)).content

    def run_events(self, run_id: int | str, *, last_id: str = "") -> AsyncGenerator[Event, None]:
        """Changes of a run as they happen: ``step`` and ``run`` events, and ``open`` for each connection."""
        from perijove.events import read_events

        return read_events(self._as_client(), f"{_path(run_id)}/events", {}, last_id=last_id)

    async def _get_page(self, path: str, params: Mapping[str, Any]) -> Document:
        return dict(await self.request_json("GET", path, params))

    def _as_client(self) -> AsyncClient:
        from perijove.client import AsyncClient

        assert isinstance(self, AsyncClient)
        return self

    def _run(self, record: Document) -> AsyncRun:
        from perijove.runs import AsyncRun

        return AsyncRun(self._as_client(), record)


def _body(
    workflow: Mapping[str, Any], parameters: Mapping[str, Any] | None, cache: Cache, how: Mapping[str, Any]
) -> Document:
    given = {name: value for name, value in how.items() if value is not None}
    return {"workflow": dict(workflow), "parameters": dict(parameters or {}), "cache": cache, **given}


def _path(run_id: int | str) -> str:
    return f"/workflows/{quote(str(run_id), safe='')}"
