"""A Dask cluster of one's own: scheduler and workers are jobs, and end with their owner."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import websockets
from distributed import Client
from distributed.comm import core
from installation import installed
from waiting import wait_until
from websockets.sync.client import connect
from websockets.typing import Origin

from perijove import Client as Service
from perijove import DaskCluster, UserError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SMALL: dict[str, Any] = {"cpus": 0.25, "memory": "700M"}

ABANDONED = """
import sys, time
from perijove import DaskCluster
cluster = DaskCluster(workers=1, cpus=0.25, memory="700M", linger="4s", url=sys.argv[1], token=sys.argv[2])
cluster.get_client().wait_for_workers(1)
print("there", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """`url` and `token` of an installation with plain processes."""
    state = tmp_path_factory.mktemp("dask")
    with installed(state, "--no-hub", "--launcher", "process", "--port", "0") as here:
        yield {"url": here.endpoint["url"], "token": here.token}


@pytest.fixture(autouse=True)
def _nothing_before(place: dict[str, Any]) -> None:
    wait_until(lambda: live(place) == [], "the end of the jobs of the test before", 120)


def live(place: dict[str, Any]) -> list[str]:
    """Names of the jobs that have not ended."""
    return [job.name for job in Service(**place).jobs() if not job.state.ended]


def test_it_computes_grows_shrinks_and_leaves_no_job(place: dict[str, Any]) -> None:
    with DaskCluster(workers=1, **SMALL, **place) as cluster, cluster.get_client() as client:
        assert cluster.scheduler.address.startswith("tls://")
        assert client.submit(pow, 2, 10).result(timeout=120) == 1024
        cluster.scale(2)
        client.wait_for_workers(2, timeout=120)
        assert sum(client.gather(client.map(lambda x: x * x, range(50)))) == 40425
        assert sorted(live(place)) == ["dask-scheduler", "dask-worker", "dask-worker"]
        cluster.scale(1)
        wait_until(lambda: len(live(place)) == 2, "one worker less", 60)
        cluster.adapt(minimum=0, maximum=1, interval="200ms", wait_count=2)
        wait_until(lambda: live(place) == ["dask-scheduler"], "no worker", 60)
        assert client.submit(pow, 2, 11).result(timeout=120) == 2048
    wait_until(lambda: live(place) == [], "the end of all jobs", 60)


async def test_it_may_be_awaited(place: dict[str, Any]) -> None:
    async with (
        DaskCluster(workers=1, asynchronous=True, **SMALL, **place) as cluster,
        Client(cluster, asynchronous=True) as client,
    ):
        assert await client.submit(sum, [1, 2, 3]) == 6


def test_who_has_no_key_gets_no_answer(place: dict[str, Any]) -> None:
    with DaskCluster(**SMALL, **place) as cluster:
        address = cluster.scheduler.address
        for stranger in (address, address.replace("tls://", "tcp://")):
            with pytest.raises((OSError, TypeError)):
                asyncio.run(core.connect(stranger, timeout=10))


def test_it_ends_when_its_owner_is_killed(place: dict[str, Any]) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", ABANDONED, place["url"], place["token"]], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    try:
        assert owner.stdout.readline() == "there\n"
        assert {"dask-scheduler", "dask-worker"} <= set(live(place))
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    wait_until(lambda: live(place) == [], "the end of all jobs", 120)


def test_it_ends_when_it_is_idle(place: dict[str, Any]) -> None:
    with DaskCluster(idle="8s", **SMALL, **place):
        wait_until(lambda: live(place) == [], "the end of all jobs", 120)


def test_its_dashboard_is_for_its_owner(place: dict[str, Any], tmp_path: Path) -> None:
    with DaskCluster(**SMALL, **place) as cluster:
        link = cluster.dashboard_link
        assert httpx.get(link).status_code == 401
        with httpx.Client(follow_redirects=True) as browser:
            browser.get(f"{place['url']}/", params={"token": place["token"]})
            page = browser.get(link)
            assert page.status_code == 200
            assert "Dask" in page.text
            assert "set-cookie" not in page.headers
            assert browser.get(link.replace("/dask/", "/dask/0")).status_code == 404
            cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        address, host = urlsplit(link), urlsplit(place["url"]).netloc
        socket = f"ws://{host}{address.path}/ws"
        for headers, origin in ((None, f"http://{host}"), ({"Cookie": cookie}, "http://evil.example")):
            with pytest.raises(websockets.InvalidStatus):
                connect(socket, additional_headers=headers, origin=Origin(origin))


def test_bad_wishes_are_refused(place: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="workers: must be 0 or more"):
        DaskCluster(workers=-1, **place)
    with pytest.raises(RuntimeError, match="image"):
        DaskCluster(image="no-such-image:1", **SMALL, **place)
    assert live(place) == []
