"""A process dies at each line where its death could lose or double a job; the jobs do not notice."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from installation import installed
from waiting import wait_until
from witness import Witness, all_is_free, everything_ended, submit

from perijove_spawners import failpoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


TURNS = (
    failpoints.SERVICE[::2],
    failpoints.SERVICE[1::2],
    failpoints.NODE[::2],
    failpoints.NODE[1::2],
)
"""Places at which one installation dies in turn; neighbours in different ones."""


@pytest.mark.parametrize("places", TURNS, ids=" ".join)
def test_a_death_there_loses_and_doubles_nothing(
    places: tuple[str, ...], tmp_path: Path, witness: Witness
) -> None:
    marks = {place: tmp_path / place for place in places}
    env = {"PERIJOVE_FAILPOINTS": ",".join(f"{place}={mark}" for place, mark in marks.items())}
    options = ("--no-hub", "--port", "0", "--launcher", "process")
    with installed(tmp_path / "state", *options, env=env) as site:
        jobs = [submit(site, witness.spec(f"j{i}", 0.1 * i), f"j{i}") for i in range(6)]
        victim = submit(site, witness.spec("victim", 600), "victim")
        site.until(victim, ("running",), 90)

        def killed() -> bool:
            try:
                with site.client() as http:
                    return http.post(f"/jobs/{victim}/kill").status_code in {200, 409}
            except httpx.TransportError:  # The service may be the one that died.
                return False

        wait_until(killed, "the kill", 60)
        found = everything_ended(site, [*jobs, victim], 90)
        never = [place for place, mark in marks.items() if not mark.exists()]
        assert never == [], "these were never reached"
        assert [job["state"] for job in found] == ["succeeded"] * 6 + ["killed"]
        assert [job["exit_code"] for job in found[:6]] == [0] * 6
        runs = witness.runs()
        assert sorted(runs) == sorted([*(f"j{i}" for i in range(6)), "victim"])
        assert all(set(attempts.values()) == {1} and len(attempts) == 1 for attempts in runs.values()), runs
        wait_until(lambda: all_is_free(site), "an empty ledger", 30)
