"""A real hub with a server in a real container: it outlives whatever dies beside it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import psutil
import pytest
from installation import Installation
from waiting import wait_until

from perijove_hub.image import build_image

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]


class Browser:
    """A login at the hub: cookies, and the hub's REST API through them."""

    def __init__(self, site: Installation, user: str) -> None:
        self.user = user
        self.http = httpx.Client(base_url=site.url, follow_redirects=True, timeout=60)
        self.http.get("/hub/login")
        form = {"username": user, "password": (site.state / "password").read_text().strip()}
        self.http.post("/hub/login", data={**form, "_xsrf": self.http.cookies["_xsrf"]})
        self.http.get("/hub/home")
        cookies = [cookie for cookie in self.http.cookies.jar if cookie.name == "_xsrf"]
        self.xsrf = next(cookie.value for cookie in cookies if cookie.path == "/hub/")

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request of the hub's API, about this user."""
        return self.http.request(
            method,
            f"/hub/api/users/{self.user}{path}",
            params={"_xsrf": self.xsrf},
            headers={"Referer": str(self.http.base_url)},
            **more,
        )

    @property
    def ready(self) -> bool:
        """Whether the hub says that the server is there."""
        answer = self.ask("GET", "")
        return bool(answer.status_code == 200 and answer.json()["servers"].get("", {}).get("ready"))

    def works(self) -> bool:
        """Whether JupyterLab itself answers through the proxy."""
        answer = self.http.get(f"/user/{self.user}/lab")
        return answer.status_code == 200 and "<title>JupyterLab</title>" in answer.text


@pytest.fixture(scope="module")
def image(docker_url: str) -> str:
    return build_image()


@pytest.fixture
def site(image: str, tmp_path: Path) -> Iterator[Installation]:
    site = Installation(tmp_path / "state", "--port", "0", "--launcher", "docker", "--on-exit", "stop")
    try:
        yield site.start()
    finally:
        if site.process is not None and site.process.poll() is None:
            site.stop()


def browser_of(site: Installation) -> Browser:
    said = wait_until(
        lambda: [line for line in site.output if line.startswith("Log in as ")], "how to log in"
    )
    return Browser(site, said[0].split()[3])


def containers(docker_url: str, site: Installation) -> list[Any]:
    """The running containers of this installation."""
    name = (site.state / "installation").read_text().strip()
    client = docker.DockerClient(base_url=docker_url)
    return [c for c in client.containers.list() if str(c.name).startswith(f"perijove-{name}")]


def processes(site: Installation) -> list[str]:
    """What runs with this state directory in its environment or command line, but containers."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            env = process.environ()
        except psutil.Error:
            continue
        if env.get("PERIJOVE_STATE") == str(site.state):
            found.append(" ".join(process.info["cmdline"] or []))
    return found


def test_a_server_outlives_hub_service_and_up(site: Installation, docker_url: str) -> None:
    browser = browser_of(site)
    assert browser.ask("POST", "/server", json={"cpus": 0.5}).status_code in {201, 202}
    wait_until(lambda: browser.ready, "the start of the server", 120)
    [container] = containers(docker_url, site)
    assert browser.works()

    site.kill("hub")
    wait_until(lambda: answers(site), "the hub's return", 120)
    browser = browser_of(site)
    assert browser.ready
    assert browser.works()

    assert site.process is not None
    os.kill(site.process.pid, signal.SIGKILL)
    site.process.wait()
    wait_until(lambda: not processes(site), "the end of what the killed up had started", 40)
    assert [c.id for c in containers(docker_url, site)] == [container.id]

    site.url = ""
    site.start()
    browser = browser_of(site)
    wait_until(lambda: browser.ready and browser.works(), "the server's return", 60)
    assert [c.id for c in containers(docker_url, site)] == [container.id]

    assert browser.ask("DELETE", "/server").status_code in {202, 204}
    wait_until(lambda: not containers(docker_url, site), "the end of the server", 60)
    site.stop()
    assert processes(site) == []


def test_the_notebooks_own_token_submits(site: Installation, docker_url: str) -> None:
    browser = browser_of(site)
    browser.ask("POST", "/server", json={"cpus": 0.5})
    wait_until(lambda: browser.ready, "the start of the server", 120)
    [container] = containers(docker_url, site)
    code = (
        "import os, httpx; u = os.environ['PERIJOVE_URL'] + '/api/v1';"
        "h = {'Authorization': 'Bearer ' + os.environ['JUPYTERHUB_API_TOKEN']};"
        "print(httpx.post(u + '/jobs', headers=h, json={'command': ['id'], 'cpu': 0.5}).json()['id'])"
    )
    status, output = container.exec_run(["python", "-c", code], user=container.attrs["Config"]["User"])
    assert status == 0, output
    with by_endpoint(site) as http:
        path = f"/jobs/{int(output)}"
        wait_until(lambda: http.get(path).json()["exit_code"] is not None, "the job's end", 60)
        job = http.get(path).json()
        assert (job["state"], job["owner"]) == ("succeeded", browser.user)
        uid = container.attrs["Config"]["User"].partition(":")[0]
        assert f"uid={uid}" in http.get(f"{path}/logs").text


def by_endpoint(site: Installation) -> httpx.Client:
    """REST, as whoever ran `up` finds it."""
    endpoint = json.loads((site.state / "endpoint.json").read_text())
    headers = {"Authorization": f"Bearer {endpoint['token']}"}
    return httpx.Client(base_url=f"{endpoint['url']}/api/v1", headers=headers, timeout=60)


def answers(site: Installation) -> bool:
    """Whether hub and service answer through the proxy."""
    try:
        paths = ("/hub/health", "/services/perijove/api/v1/health")
        return all(httpx.get(f"{site.url}{path}", timeout=5).status_code == 200 for path in paths)
    except httpx.HTTPError:
        return False
