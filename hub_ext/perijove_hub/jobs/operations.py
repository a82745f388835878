"""What administrators set while the service runs and what survives it: policy, drains, maintenance."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from perijove.model import (
    ConflictError,
    NodeState,
    NotFoundError,
    OperatorError,
    Outcome,
    PerijoveError,
    ReasonCode,
)
from perijove_hub.jobs.core import Core
from perijove_hub.jobs.events import Ended
from perijove_hub.jobs.nodes import Nodes
from perijove_hub.policy.document import Policy, load
from perijove_hub.policy.registry import create
from perijove_hub.policy.standing import Standing

log = logging.getLogger(__name__)

POLICY, DRAINED, MAINTENANCE = "policy", "drained", "maintenance"
"""Names of the documents."""


class Operations:
    """Each change is durable before it holds."""

    def __init__(self, core: Core, nodes: Nodes) -> None:
        self._core, self._nodes = core, nodes
        self._changing = asyncio.Lock()

    async def policy(self) -> Policy:
        """The policy to begin with: the last that was applied, else the file in the state directory, else
        all defaults. Raises :class:`OperatorError` when it cannot be read.
        """
        kept = await asyncio.to_thread(self._core.database.document, POLICY)
        path = self._core.settings.state / "policy.yaml"
        source, text = ("the applied policy", kept.body) if kept else (str(path), "")
        try:
            if kept is None and path.is_file():
                text = path.read_text()
            return load(text)
        except (OSError, PerijoveError) as error:
            raise OperatorError(f"{source} cannot be used: {error}") from error

    async def recall(self) -> None:
        """Drained nodes and maintenance as they were."""
        drained = await self._read(DRAINED)
        self._nodes.drained = {str(name): str(reason) for name, reason in drained.items()}
        maintenance = await self._read(MAINTENANCE)
        self._core.board.maintenance = maintenance.get("reason") if maintenance.get("on") else None

    async def set_policy(self, text: str, by: str) -> Policy:
        """Apply another policy. :class:`InvalidSpecError` names what is wrong with it; nothing is changed."""
        policy = load(text)
        scheduler = create(policy.scheduler, policy)
        async with self._changing:
            await self._save(POLICY, text, by)
            self._core.board.adopt(policy, scheduler)
        self._core.wake.set()
        log.info("policy applied by %s", by)
        return policy

    async def maintenance(self, reason: str | None, by: str) -> None:
        """Start nothing any more, for `reason`; None: start again."""
        async with self._changing:
            await self._save(MAINTENANCE, json.dumps({"on": reason is not None, "reason": reason}), by)
            self._core.board.maintenance = reason
        self._core.board.placeable = True
        self._core.wake.set()

    async def drain(self, name: str, reason: str, by: str) -> None:
        """Have a node take no more jobs; what runs there ends. :class:`NotFoundError`: no such node."""
        self._must_be_there(name)
        async with self._changing:
            drained = {**self._nodes.drained, name: reason}
            await self._save(DRAINED, json.dumps(drained), by)
            self._nodes.drained = drained
        node = self._core.ledger.node(name)
        if node is not None and node.state is not NodeState.DOWN:
            self._nodes.mark(name)

    async def undrain(self, name: str, by: str) -> None:
        """Have a drained node take jobs again."""
        self._must_be_there(name)
        async with self._changing:
            drained = {node: reason for node, reason in self._nodes.drained.items() if node != name}
            await self._save(DRAINED, json.dumps(drained), by)
            self._nodes.drained = drained
        await self._nodes.reconcile(name)

    async def remove(self, name: str, by: str, *, rejoins: bool) -> int:
        """Forget a node for good; its jobs, if any, are lost there. How many these were.

        With `rejoins` it comes back only after it has joined anew; else when it announces itself.
        """
        core, now = self._core, self._core.clock()
        lost = core.ledger.jobs_on(name)
        for job in lost:
            message = f"node {name} was removed by {by}"
            core.board.apply(job.id, Ended(Outcome(reason=ReasonCode.NODE_LOST, message=message)), now)
        core.wake.set()
        if core.ledger.jobs_on(name):
            raise ConflictError(f"jobs of node {name} are being changed; try again")
        if rejoins:
            self._nodes.gone.add(name)
        if (node := core.ledger.node(name)) is not None:
            core.inventory.note(node.model_copy(update={"state": NodeState.DOWN}), now)
            core.ledger.forget(name)
            core.board.standing.capacity = sum(one.cpus for one in core.ledger.nodes)
        if name in self._nodes.drained:
            async with self._changing:
                drained = {node: reason for node, reason in self._nodes.drained.items() if node != name}
                await self._save(DRAINED, json.dumps(drained), by)
                self._nodes.drained = drained
        return len(lost)

    def _must_be_there(self, name: str) -> None:
        nodes = self._core.ledger.nodes
        if name not in {node.name for node in nodes} and name not in self._nodes.drained:
            known = ", ".join(node.name for node in nodes) or "none"
            raise NotFoundError(f"there is no node {name}; there are: {known}")

    async def _read(self, name: str) -> dict[str, Any]:
        kept = await asyncio.to_thread(self._core.database.document, name)
        found = json.loads(kept.body) if kept else {}
        return found if isinstance(found, dict) else {}

    async def _save(self, name: str, body: str, by: str) -> None:
        save = self._core.database.save_document
        await asyncio.to_thread(save, name, body, by, self._core.clock())


async def standing_of(core: Core, policy: Policy) -> Standing:
    """What everybody has used, under `policy`, as the database has it."""
    since = core.clock() - Standing(policy).horizon
    history = await asyncio.to_thread(core.database.allocations, since)
    standing = Standing(policy, history)
    standing.terms_of = core.terms_of
    return standing
