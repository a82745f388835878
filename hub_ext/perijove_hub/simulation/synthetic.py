"""Made-up users: steady ones, bursts, arrays, jobs with GPUs. The same seed makes the same trace."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import log

from perijove.model import JobSpec, OperatorError, ReasonCode
from perijove_hub.simulation.trace import Arrival, Run

DAY, HOUR = 86400.0, 3600.0
GIB = 1 << 30
CORES = (1, 1, 1, 2, 2, 4, 4, 8, 16)
"""What jobs ask for: as often as they stand here."""
NAMES = ("train", "align", "fit", "plot", "sweep", "simulate")


@dataclass(frozen=True, slots=True)
class Demand:
    """How much is asked for. Written ``users=50,days=7,seed=1``, these names."""

    users: int = 50
    projects: int = 0
    """Users are spread over so many; 0: they are in none."""
    days: float = 7.0
    jobs: float = 40.0
    """Submissions of one user in a day."""
    minutes: float = 60.0
    """Mean run time."""
    bursts: float = 0.2
    """Of the users, so many submit all of a day's work at once."""
    arrays: float = 0.05
    """Of the submissions, so many are arrays."""
    tasks: int = 20
    """Mean size of an array."""
    gpus: float = 0.1
    """Of the jobs, so many ask for GPUs."""
    fails: float = 0.05
    """Of the jobs, so many end with an error."""
    retries: int = 0
    steady: bool = False
    """All alike: jobs of one core and one length, evenly spread over the time."""
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Demand:
        """What ``users=50,days=7`` says. Raises ``OperatorError`` naming what is wrong."""
        usual = cls()
        kinds: dict[str, type] = {field.name: type(getattr(usual, field.name)) for field in fields(cls)}
        given: dict[str, int | float | bool] = {}
        for part in filter(None, text.split(",")):
            name, _, value = part.strip().partition("=")
            if name not in kinds:
                raise OperatorError(f"synthetic: there is no {name!r}; there are: {', '.join(kinds)}")
            try:
                given[name] = bool(int(value or "1")) if kinds[name] is bool else kinds[name](value)
            except ValueError:
                word = "a whole number" if kinds[name] is int else "a number"
                raise OperatorError(f"synthetic: {name}={value!r} must be {word}") from None
            if given[name] < 0 or given[name] != given[name]:
                raise OperatorError(f"synthetic: {name}={value!r} must not be negative")
        return cls(**given)  # type: ignore[arg-type]


def synthetic(demand: Demand) -> Iterator[Arrival]:
    """The submissions of all users, in the order of time."""
    return heapq.merge(*(_user(demand, i) for i in range(demand.users)), key=lambda arrival: arrival.at)


def _user(demand: Demand, number: int) -> Iterator[Arrival]:
    chance = random.Random(f"{demand.seed}/{number}")  # noqa: S311 - a simulation, no secret
    owner = f"user{number:03d}"
    project = f"project{number % demand.projects}" if demand.projects else None
    for at in _times(demand, chance, number):
        yield (
            _steady(demand, at, owner, project) if demand.steady else _one(demand, chance, at, owner, project)
        )


def _times(demand: Demand, chance: random.Random, number: int) -> Iterator[float]:
    if demand.jobs <= 0:
        return
    end, between = demand.days * DAY, DAY / demand.jobs
    if demand.steady:
        at = between * number / max(1, demand.users)
        while at < end:
            yield at
            at += between
    elif number < demand.bursts * demand.users:
        at = chance.random() * DAY
        while at < end:
            yield from (at + i * 0.1 for i in range(max(1, round(demand.jobs))))
            at += DAY * chance.uniform(0.5, 1.5)
    else:
        at = chance.expovariate(1 / between)
        while at < end:
            yield at
            at += chance.expovariate(1 / between)


def _steady(demand: Demand, at: float, owner: str, project: str | None) -> Arrival:
    seconds = demand.minutes * 60
    spec = JobSpec(command=["steady"], cpu=1, memory=GIB, time_limit=2 * seconds, project=project)
    return Arrival(at, owner, spec, (Run(seconds),), name="steady")


def _one(demand: Demand, chance: random.Random, at: float, owner: str, project: str | None) -> Arrival:
    name = chance.choice(NAMES)
    cores = chance.choice(CORES)
    asked: dict[str, object] = {
        "command": [name],
        "cpu": cores,
        "memory": cores * GIB * chance.choice((1, 2, 4)),
    }
    if chance.random() < demand.gpus:
        asked["gpus"] = chance.choice((1, 1, 1, 2, 4))
    size = 1
    if chance.random() < demand.arrays:
        size = max(2, round(chance.expovariate(1 / max(1, demand.tasks))))
        asked["array"] = f"1-{size}"
    asked |= {"time_limit": _limit(demand, chance), "retries": demand.retries, "project": project}
    runs = {i: _runs(demand, chance) for i in range(size)}
    return Arrival(at, owner, JobSpec.model_validate(asked), runs[0], runs if size > 1 else {}, name=name)


def _limit(demand: Demand, chance: random.Random) -> float:
    """People ask for round times, and for more than they need."""
    wanted = demand.minutes * 60 * chance.choice((2, 4, 8, 24))
    return max(600.0, round(wanted / 600) * 600.0)


def _runs(demand: Demand, chance: random.Random) -> tuple[Run, ...]:
    """Run times are log-normal: many short ones, few very long."""
    spread = 1.2
    seconds = chance.lognormvariate(log(demand.minutes * 60) - spread**2 / 2, spread)
    if chance.random() < demand.fails:
        return (Run(max(1.0, seconds * chance.random()), ReasonCode.NON_ZERO_EXIT, 1), Run(seconds))
    return (Run(max(1.0, seconds)),)
