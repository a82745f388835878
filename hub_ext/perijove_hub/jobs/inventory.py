"""Which nodes there were, and when: written down for those who rehearse a policy on what happened.

A document, each version of which holds only what changed since the one before. It is written beside all
else: nothing waits for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from perijove.model import Node, NodeState
from perijove_hub.store.database import TRANSIENT, Database, StaleLeaderError

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

NODES = "nodes"
"""Name of the document."""
PAUSE = 1.0
"""Seconds in which changes gather."""
_UNTOLD = {"incarnation", "address", "images", "seen", "state", "reason"}
"""What of a node decides nothing, or is written apart."""


class Inventory:
    """`database` is asked for when it is written to."""

    def __init__(self, database: Callable[[], Database]) -> None:
        self._database = database
        self._known: dict[str, tuple[dict[str, Any], NodeState]] = {}
        self._changes: list[dict[str, Any]] = []
        self._changed = asyncio.Event()

    def began(self, now: float) -> None:
        """The service starts: until nodes announce themselves, none takes jobs."""
        self._note({"at": now, "all": NodeState.DOWN.value})

    def note(self, node: Node | None, now: float) -> None:
        """`node` is like this now."""
        if node is None:
            return
        what = node.model_dump(mode="json", exclude=_UNTOLD, exclude_defaults=True)
        known = self._known.get(node.name)
        if known is not None and known[0] == what:
            if known[1] is node.state:
                return
            what, change = known[0], {"at": now, "name": node.name, "state": node.state.value}
        else:
            change = {"at": now, "node": what, "state": node.state.value}
        self._known[node.name] = (what, node.state)
        self._note(change)

    async def run(self) -> None:
        """Write for ever; ends when another service leads."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(PAUSE)
            self._changed.clear()
            try:
                await self.write()
            except TRANSIENT as error:
                log.info("the nodes are not written down yet: %s", error)
                self._changed.set()
            except StaleLeaderError:
                return

    async def write(self) -> None:
        """Write what gathered."""
        changes = list(self._changes)
        if not changes:
            return
        body = json.dumps(changes)
        await asyncio.to_thread(self._database().save_document, NODES, body, "service", changes[-1]["at"])
        del self._changes[: len(changes)]

    def _note(self, change: dict[str, Any]) -> None:
        self._changes.append(change)
        self._changed.set()


def read(bodies: Iterable[str]) -> Iterator[tuple[float, Node]]:
    """From all versions, the first one first: when a node changed, and what it was like from then on."""
    nodes: dict[str, Node] = {}
    for body in bodies:
        for change in json.loads(body):
            at = float(change["at"])
            if "all" in change:
                some = [(node, change["all"]) for node in nodes.values()]
            elif "node" in change:
                some = [(Node.model_validate(change["node"]), change["state"])]
            else:
                known = nodes.get(change["name"])
                some = [(known, change["state"])] if known is not None else []
            for node, state in some:
                nodes[node.name] = node.model_copy(update={"state": NodeState(state)})
                yield at, nodes[node.name]
