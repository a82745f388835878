"""A simulated node whose jobs end by themselves, as their commands say; and runs of workflows on it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from waiting import becomes

from perijove.model import Attempt
from perijove_hub.settings import Settings
from perijove_spawners.protocol import Order

from .conftest import Service, SimulatedNode, node, running

ENDED = {"succeeded", "failed", "killed"}


@dataclass
class WorkingNode(SimulatedNode):
    """``make JSON`` records the values of that object, ``fail`` fails, ``wait`` runs until it is stopped."""

    described: Any = field(default_factory=lambda: node(cpus=1000.0, memory=1 << 40))
    ran: Counter[str] = field(default_factory=Counter)
    """How often a job of each name was started."""
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    """Job name -> output -> digest, of what it is to make."""
    by_title: dict[str, Attempt] = field(default_factory=dict)

    async def start(self, orders: Sequence[Order]) -> None:
        for order in orders:
            new = order.attempt not in self.orders
            await super().start([order])
            if not new:
                continue
            self.ran[order.title] += 1
            self.by_title[order.title] = order.attempt
            match order.command:
                case ("wait", *_):
                    continue
                case ("fail", *_):
                    self.finish(order.attempt, 1)
                case ("make", text):
                    self.end(order, json.loads(text))
                case _:
                    self.end(order, {})

    def end(self, order: Order, values: dict[str, Any]) -> None:
        outputs = self.outputs.get(order.title, {})
        self.finish(order.attempt, 0, values=values, outputs=outputs, sizes=dict.fromkeys(outputs, 1))


@dataclass
class Flows:
    """The service's workflows."""

    service: Service
    node: WorkingNode

    async def begin(self, steps: dict[str, Any], **more: Any) -> int:
        """A run of these steps; fields of the workflow and of the request beside them."""
        fields = {name: more.pop(name) for name in ("name", "parameters_of") if name in more}
        document = {
            "steps": steps,
            "name": fields.get("name", "flow"),
            "parameters": fields.get("parameters_of", {}),
        }
        answer = await self.service.http.post("/workflows", json={"workflow": document, **more})
        assert answer.status_code == 201, answer.text
        number: int = answer.json()["id"]
        return number

    async def run(self, number: int) -> dict[str, Any]:
        answer = await self.service.http.get(f"/workflows/{number}")
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def ended(self, number: int) -> dict[str, Any]:
        """Wait for its end."""

        async def over() -> dict[str, Any] | None:
            found = await self.run(number)
            return found if found["state"] in ENDED else None

        return await becomes(over, f"run {number} ends", 60)

    async def steps(self, number: int) -> dict[str, dict[str, Any]]:
        """By label."""
        answer = await self.service.http.get(f"/workflows/{number}/steps", params={"limit": 10_000})
        assert answer.status_code == 200, answer.text
        found = {}
        for step in answer.json()["steps"]:
            label = step["step"] if step["index"] is None else f"{step['step']}[{step['index']}]"
            found[label] = step
        return found

    async def states(self, number: int) -> dict[str, str]:
        return {label: step["state"] for label, step in (await self.steps(number)).items()}

    async def until(self, number: int, label: str, *states: str) -> dict[str, Any]:
        """Wait until a step is in one of `states`."""

        async def there() -> dict[str, Any] | None:
            found = (await self.steps(number)).get(label)
            return found if found is not None and found["state"] in states else None

        return await becomes(there, f"{label} of {number}: {states}", 30)

    async def act(self, number: int, verb: str, body: Any = None, status: int = 200) -> dict[str, Any]:
        answer = await self.service.http.post(f"/workflows/{number}/{verb}", json=body)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found


@asynccontextmanager
async def flowing(settings: Settings, work: WorkingNode | None = None) -> AsyncIterator[Flows]:
    """A service over one working node."""
    work = work or WorkingNode()
    async with running(settings, [work]) as service:
        yield Flows(service, work)
