"""Guests: invited, activated, bounded, disabled, promoted, removed; by whom, and also after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from waiting import becomes

from perijove.model import Attempt, Budget, UserKind
from perijove_hub.accounting import HOUR
from perijove_hub.policy.account import Amounts
from perijove_hub.settings import Settings
from perijove_spawners.protocol import Order

from .conftest import SimulatedNode, node
from .guests import SPEC, Site, guest_settings, site


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> Settings:
    return guest_settings(tmp_path, migrated)


async def test_a_link_for_an_address_lets_in_once_and_nobody_else(settings: Settings) -> None:
    async with site(settings, {"disk": "1G", "expires": "30d"}) as here:
        body = {"project": "moon", "email": "g@example.org", "budget": {"cpu_minutes": 60}}
        code = (await here.done("lena", "/invitations", body))["code"]
        assert code not in (await here.ask("lena", "GET", "/invitations")).text
        for wrong in ({}, {"email": "g@example.org"}, {"email": "x@example.org", "email_verified": True}):
            answer = await here.arrive("gina", invitation=code, **wrong)
            assert (answer["name"], answer["state"]) == (None, "refused")
        right = {"email": "G@example.org", "email_verified": True}
        both = await asyncio.gather(*(here.arrive(who, invitation=code, **right) for who in ("gina", "eve")))
        assert sorted(answer["state"] for answer in both) == ["active", "refused"]
        [person] = here.users.people.values()
        assert person.user.project == "moon"
        assert person.user.sponsor == "lena"
        assert person.user.expires is not None
        assert person.user.budget == Budget(cpu_minutes=60)


async def test_an_open_link_waits_for_the_projects_lead_and_no_other(settings: Settings) -> None:
    async with site(settings) as here:
        assert (await here.ask("sam", "POST", "/invitations", {"project": "moon"})).status_code == 403
        assert (await here.ask("gina", "POST", "/invitations", {})).status_code == 403
        code = (await here.done("lena", "/invitations", {"project": "moon"}))["code"]
        assert (await here.arrive("gina", invitation=code))["state"] == "waiting"
        assert (await here.ask("sam", "GET", "/users/gina")).status_code == 404
        assert (await here.ask("sam", "POST", "/users/gina/activate")).status_code == 404
        waiting = (await here.ask("lena", "GET", "/users?state=waiting")).json()
        assert [user["name"] for user in waiting] == ["gina"]
        assert (await here.done("lena", "/users/gina/activate"))["state"] == "active"
        assert (await here.ask("lena", "POST", "/users/gina/promote")).status_code == 403
        assert (await here.submit())["spec"]["project"] == "moon"


async def test_names_of_others_are_never_a_guests(settings: Settings) -> None:
    async with site(settings) as here:
        for taken in ("root", "daemon", "lena", "sam", "user20042", "perijove-login", "admin"):
            answer = await here.arrive(f"id-{taken}", username=taken)
            assert answer["name"] not in {taken, None}
            assert answer["state"] == "waiting"


async def test_a_guests_bounds_hold(settings: Settings) -> None:
    async with site(settings, {"disk": "1G", "network": ["none"]}) as here:
        await here.guest(budget={"cpu_minutes": 6})
        assert (await here.submit(network=None))["spec"]["network"] == "none"
        for refused in ({"network": "bridge"}, {"user": "root"}, {"launcher": "process"}):
            answer = await here.ask(
                "gina", "POST", "/jobs", {"command": ["true"], "launcher": "docker", **refused}
            )
            assert answer.status_code == 422, answer.text
            assert "guest" in answer.text
        here.controller.board.standing.remember("gina", Amounts(0.2 * HOUR, 0, 0), here.controller.clock())
        answer = await here.ask("gina", "POST", "/jobs", {"command": ["true"], "launcher": "docker"})
        assert "budget of guest gina: cpu_hours 0.2 of 0.1 used in all" in answer.text
        await here.done("boss", "/users/gina/extend", {"budget": {"cpu_minutes": 600}})
        await here.submit()
        home = here.users.identity("gina").home_source
        here.node.homes[home] = (2 << 30, 20_001)
        here.watch._unmeasured.add("gina")
        await here.watch.measure()
        answer = await here.ask("gina", "POST", "/jobs", {"command": ["true"], "launcher": "docker"})
        assert "the home of guest gina takes 2G of 1G" in answer.text, answer.text
        assert "over" in " ".join((await here.ask("gina", "GET", "/me")).json()["warnings"])


def minutes_left(here: Site, cpu: float, gpu: float = 0.0) -> Amounts:
    """Have gina's use be that many minutes below 60 each; what it is then."""
    used = Amounts(HOUR - cpu * 60, 0, HOUR - gpu * 60)
    here.controller.board.standing.remember("gina", used, here.controller.clock())
    return used


async def test_jobs_that_run_end_when_the_budget_is_used_up(settings: Settings) -> None:
    async with site(settings, {"budget_notice": "7s"}) as here:
        await here.guest(budget={"cpu_minutes": 60, "gpu_minutes": 60})
        minutes_left(here, 10, 10)
        text = (await here.ask("gina", "POST", "/jobs", SPEC | {"cpu": 2, "time_limit": 360})).text
        assert "cpu_hours 0.83 of 1 used in all, 0.2 more asked for by the time limit" in text
        plain, gpu = (await here.submit(cpu=1))["id"], (await here.submit(cpu=1, gpus=1))["id"]
        for job in (plain, gpu):
            await here.until(job, "running")
        await here.watch.end_overspent()
        minutes_left(here, 10, 0)
        waits = (await here.submit(cpu=4))["id"]
        await here.watch.end_overspent()
        await here.until(gpu, "killed")
        found = (await here.ask("gina", "GET", f"/jobs/{gpu}")).json()
        assert found["reason"]["code"] == "BudgetUsedUp"
        assert "the GPU budget (60.0 of 60.0 minutes) of gina is used up" in found["reason"]["message"]
        assert await here.state(plain) == "running"
        minutes_left(here, 0)
        await here.watch.end_overspent()
        await here.until(plain, "killed")
        assert (await here.ask("gina", "GET", f"/jobs/{waits}")).json()["reason"]["code"] == "Quota"
        await here.done("boss", "/users/gina/extend", {"budget": {"cpu_minutes": 600}})
        await here.until(waits, "running")


async def test_the_budget_counts_while_the_service_is_away_and_a_site_may_let_jobs_run_on(
    settings: Settings,
) -> None:
    async with site(settings, {"on_budget": "run"}) as here:
        await here.guest(budget={"cpu_minutes": 1e-4})
        job, there = (await here.submit(cpu=4))["id"], here.node
        await here.until(job, "running")
        await here.watch.round()
        assert await here.state(job) == "running"
        refused = await here.ask("gina", "POST", "/jobs", SPEC)
        assert refused.status_code == 422 and "budget of guest gina" in refused.text
    async with site(settings, None, there.restart()) as again:
        await again.until(job, "killed")
        found = (await again.ask("gina", "GET", f"/jobs/{job}")).json()
        assert found["reason"]["code"] == "BudgetUsedUp"


async def test_jobs_end_when_their_guest_is_disabled_or_expires(settings: Settings) -> None:
    async with site(settings) as here:
        await here.guest()
        job = (await here.submit())["id"]
        await here.until(job, "running")
        assert (await here.done("boss", "/users/gina/disable"))["state"] == "disabled"
        await here.until(job, "killed")
        assert (await here.ask("gina", "GET", "/jobs")).status_code == 403
        await here.done("boss", "/users/gina/enable")
        there = here.node
        job = (await here.submit())["id"]
        await here.until(job, "running")
        await here.users.change("gina", lambda person: person.changed(expires=1.0))
    # The service died before it acted.
    async with site(settings, None, there.restart()) as again:
        await again.until(job, "killed")
        assert again.users.standing("gina").state == "expired"
        later = again.controller.clock() + 3600
        assert (await again.done("boss", "/users/gina/extend", {"expires": later}))["state"] == "active"


async def test_draining_holds_what_waits_and_leaves_what_runs(settings: Settings) -> None:
    async with site(settings, {"on_disable": "drain"}) as here:
        await here.guest()
        running = (await here.submit(cpu=4))["id"]
        await here.until(running, "running")
        waiting = (await here.submit(cpu=4))["id"]
        await here.done("boss", "/users/gina/disable")
        await here.until(waiting, "held")
        assert await here.state(running) == "running"


async def test_a_promoted_guest_keeps_name_files_and_jobs(settings: Settings) -> None:
    async with site(settings, {"account": "nobody"}) as here:
        await here.arrive("gina")
        refused = await here.ask("boss", "POST", "/users/gina/activate")
        assert refused.status_code == 200, "the account is looked at when a job starts"
    async with site(settings) as here:
        await here.guest("hugo")
        before = here.users.identity("hugo")
        here.node.homes[before.home_source] = (5, before.account.uid)
        user = await here.done("boss", "/users/hugo/promote")
        assert (user["kind"], user["name"], user["number"]) == ("member", "hugo", 1)
        assert here.users.identity("hugo") == before
        assert here.users.people["hugo"].user.kind is UserKind.MEMBER


@dataclass
class HomeNode(SimulatedNode):
    """One that notes whose the homes were whenever a job started."""

    owners: list[int] = field(default_factory=list)

    async def start(self, orders: Sequence[Order]) -> None:
        self.owners += [owner for _ in orders for _, owner in self.homes.values()]
        await super().start(orders)


async def test_files_follow_a_promotion_on_every_node_also_on_those_that_are_away(settings: Settings) -> None:
    near, far = SimulatedNode(), HomeNode(node("n2"))
    async with site(settings, {"pool": ["nobody"]}, near, far) as here:
        await here.guest()
        before = here.users.identity("gina")
        for one in (near, far):
            one.homes[before.home_source] = (5, before.account.uid)
        early = (await here.submit(node="n1"))["id"]
        await here.until(early, "running")
        assert (await here.ask("boss", "POST", "/users/gina/promote")).status_code == 409
        near.finish(Attempt(early, 1))
        await here.until(early, "succeeded")
        here.fabric.remove("n2")
        await here.done("boss", "/users/gina/promote")
        after = here.users.identity("gina")
        assert (after.account.uid, after.home_source) == (20_001, before.home_source)
        assert near.homes[before.home_source] == (5, 20_001)
        [left] = [person.moving for person in here.users.people.values()]
        assert left is not None and left.done == ("n1",)
        assert (await here.ask("boss", "POST", "/users/gina/release")).status_code == 409
        await here.until((await here.submit(node="n1"))["id"], "running")
    # The service died, and the other node comes back later.
    async with site(settings, {"pool": ["nobody"]}, near.restart()) as again:
        await again.watch.round()
        assert again.users.people["gina"].moving is not None
        back = HomeNode(far.described.model_copy(update={"incarnation": "2"}), homes=far.homes)
        await again.fabric.add(back)
        job = (await again.submit(node="n2"))["id"]

        await becomes(lambda: _settled(again, "gina"), "the files' move", 60)
        await again.until(job, "running")
        known = (await again.ask("gina", "GET", "/jobs")).json()["jobs"]
        assert sorted(one["id"] for one in known) == [early, early + 1, job]
        assert back.owners == [20_001]
        assert [order.account.uid for order in back.orders.values()] == [20_001]
        refused = await again.ask("boss", "POST", "/users/gina/release")
        assert "directories of 1 jobs of gina belong to nobody yet" in refused.json()["detail"]
        await again.done("boss", f"/jobs/{early}/archive")
        await again.done("boss", "/users/gina/release")


async def test_a_removed_guests_files_are_anothers_also_when_the_service_died_before(
    settings: Settings,
) -> None:
    async with site(settings) as here:
        await here.guest("hugo")
        await here.guest("gina")
        home, heir = here.users.identity("hugo"), here.users.identity("gina")
        there = here.node
        there.homes[home.home_source] = (5, home.account.uid)
        here.fabric.remove("n1")
        await here.done("boss", "/users/hugo/remove", {"files": "gina"})
        assert (await here.arrive("hugo"))["state"] == "refused"
    async with site(settings, None, there.restart()) as again:

        async def given() -> bool:
            return again.node.homes[home.home_source] == (5, heir.account.uid)

        await becomes(given, "the files of who was removed", 60)
        await becomes(lambda: _settled(again, "hugo"), "its being noted", 60)
        assert (await again.arrive("hugo"))["state"] == "refused"
        assert (await again.arrive("other", username="hugo"))["name"] == "hugo-2"
        await again.guest("gone")
        path = again.users.identity("gone").home_source
        again.node.homes[path] = (7, 1)
        await again.done("boss", "/users/gone/remove", {"files": "deleted"})
        await becomes(lambda: _settled(again, "gone"), "the removal of the files", 60)
        assert path not in again.node.homes and home.home_source in again.node.homes


async def _settled(here: Site, name: str) -> bool:
    await here.watch.round()
    return here.users.people[name].moving is None
