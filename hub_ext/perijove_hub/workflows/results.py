"""Results of earlier steps taken for equal ones, and equal steps under way that are waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from perijove.model import Output
from perijove_hub.jobs.controller import Controller
from perijove_hub.store import files
from perijove_hub.store.workflow_rows import ResultLine, StepLine
from perijove_hub.workflows import explain
from perijove_hub.workflows.keys import for_all
from perijove_hub.workflows.live import Live, Unit
from perijove_hub.workflows.submitting import Draft


@dataclass(frozen=True, slots=True)
class Found:
    """What may be taken: the outputs, as JSON, and the run that made them."""

    run: int
    outputs: dict[str, Any]
    owner: str


class Results:
    """What may be taken. Of equal steps at once one runs, and the others wait for it."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._flights: dict[tuple[str, str], tuple[Unit, list[tuple[Live, Unit]]]] = {}
        """Key (and owner, of what is not sealed) -> who runs, who waits."""

    async def take(self, live: Live, some: Sequence[Draft], cached: Callable[[Unit], None]) -> list[Draft]:
        """Give results to those that there are some for; the others, which have to run.

        Those that wait for an equal one are in neither.
        """
        rest, looked = [], await self.look(live, some)
        await self._hand_on(live.run.owner, [result for _, result in looked if result is not None])
        for one, result in looked:
            if result is not None:
                give(one.unit, result)
                cached(one.unit)
            elif not self._waits(live, one.unit):
                rest.append(one)
        return rest

    async def look(self, live: Live, some: Sequence[Draft]) -> list[tuple[Draft, Found | None]]:
        """What each may take; of those that may take nothing, why they run."""
        found, before, failed, sizes = await asyncio.to_thread(self._look, live, some)
        gone = await self._gone(found)
        looked: list[tuple[Draft, Found | None]] = []
        for one in some:
            unit = one.unit
            result = found.get(unit.key or "") or found.get(live.label(unit))
            expired = result is not None and not gone.isdisjoint(digests(result.outputs))
            if result is not None and not expired:
                looked.append((one, result))
                continue
            if unit.ingredients is not None:
                old = before.get(live.label(unit))
                unit.causes = explain.causes(
                    unit.ingredients,
                    old.ingredients if old is not None else None,
                    cached=live.step_of(unit).cached,
                    mode=live.run.cache,
                    equal="expired" if expired else "failed" if unit.key in failed else "",
                    size_of=sizes.get,
                )
            looked.append((one, None))
        return looked

    def _look(
        self, live: Live, some: Sequence[Draft]
    ) -> tuple[dict[str, Found], dict[str, ResultLine], set[str], dict[str, int]]:
        """What may be taken by key or label, the latest of the same steps, keys that failed before, and the
        bytes of inputs, as far as they are known.
        """
        database, run = self._controller.database.workflows, live.run
        found: dict[str, Found] = {}
        wanted = [one.unit for one in some if one.unit.key is not None]
        if run.cache == "use":
            for unit in wanted if live.earlier else ():
                line = live.earlier.get(live.label(unit))
                if line is not None and line.key == unit.key:
                    found[live.label(unit)] = earlier(line, run.owner)
            left = [unit for unit in wanted if live.label(unit) not in found] if found else wanted
            keys = [unit.key for unit in left if unit.key and live.step_of(unit).cached]
            taken = database.results(keys, run.owner)
            found |= {key: Found(line.run, line.outputs, line.owner) for key, line in taken.items()}
        missing = [u for u in wanted if u.key not in found and live.label(u) not in found]
        before = database.latest(run.owner, run.name, [live.label(unit) for unit in missing])
        failed = database.failed([unit.key for unit in missing if unit.key])
        changed = {d for unit in missing for d in _inputs(unit.ingredients)}
        changed |= {d for line in before.values() for d in _inputs(line.ingredients)}
        return found, before, failed, files.owned_sizes(self._controller.database, run.owner, changed)

    async def _gone(self, found: dict[str, Found]) -> set[str]:
        """Digests that the store does not have any more; the others are not collected meanwhile."""
        wanted = {digest for one in found.values() for digest in digests(one.outputs)}
        return await self._controller.keeper.hold(wanted) if wanted else set()

    async def _hand_on(self, owner: str, taken: Sequence[Found]) -> None:
        """What others made is this owner's to fetch, too."""
        sizes = {
            one["digest"]: one.get("size") or 0
            for result in taken
            if result.owner != owner
            for one in result.outputs.values()
            if one.get("digest")
        }
        if sizes:
            at = self._controller.clock()
            await asyncio.to_thread(files.add_files, self._controller.database, owner, sizes, at)

    # ---- equal steps at once

    def _waits(self, live: Live, unit: Unit) -> bool:
        flight = self._flights.get(_flight(live, unit)) if self._shares(live, unit) else None
        if flight is None:
            if self._shares(live, unit):
                self.fly(live, unit)
            return False
        if flight[0] is unit:
            return False
        flight[1].append((live, unit))
        return True

    def _shares(self, live: Live, unit: Unit) -> bool:
        return unit.key is not None and live.step_of(unit).cached and live.run.cache == "use"

    def fly(self, live: Live, unit: Unit) -> None:
        """It runs; equal ones wait from now on."""
        if self._shares(live, unit):
            self._flights.setdefault(_flight(live, unit), (unit, []))

    def landed(self, live: Live, unit: Unit) -> list[tuple[Live, Unit]]:
        """It does not run any more: those that waited, who are to look again."""
        flight = self._flights.get(_flight(live, unit)) if unit.key is not None else None
        if flight is None or flight[0] is not unit:
            return []
        del self._flights[_flight(live, unit)]
        return flight[1]

    def follows(self, live: Live, unit: Unit) -> bool:
        """Whether it waits for an equal one."""
        flight = self._flights.get(_flight(live, unit)) if unit.key is not None else None
        return flight is not None and any(other is unit for _, other in flight[1])

    def leave(self, live: Live) -> list[Unit]:
        """The instances of this run that wait; they do no more."""
        found = []
        for _, waiting in self._flights.values():
            found += [unit for other, unit in waiting if other is live]
            waiting[:] = [one for one in waiting if one[0] is not live]
        return found


def earlier(line: StepLine, owner: str) -> Found:
    """What a step of the run that is resumed came to."""
    return Found(line.cached_from or line.run, line.detail.get("outputs", {}), owner)


def give(unit: Unit, result: Found) -> None:
    """It has what an equal one made."""
    unit.outputs = {name: Output.model_validate(one) for name, one in result.outputs.items()}
    unit.cached_from, unit.ingredients = result.run, None


def _flight(live: Live, unit: Unit) -> tuple[str, str]:
    return unit.key or "", "" if for_all(live.step_of(unit)) else live.run.owner


def _inputs(ingredients: dict[str, Any] | None) -> list[str]:
    given = (ingredients or {}).get("inputs", {}).values()
    return [one for one in given if isinstance(one, str)]


def digests(outputs: dict[str, Any]) -> set[str]:
    """What of the outputs has to be in the store."""
    return {one["digest"] for one in outputs.values() if one.get("digest")}
