"""The path of a new user, in a real browser: log in, get a server in a container, run the tour's cells."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from installation import Installation, installed
from playwright.sync_api import Page, expect, sync_playwright
from tests.conftest import absent
from waiting import wait_until

pytestmark = [pytest.mark.journey, pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
USER = "tour"


@pytest.fixture(scope="module")
def notebook_image(docker_url: str) -> None:
    """The notebook image, built unless it is there."""
    subprocess.run([sys.executable, "-m", "perijove_hub.image", "--if-engine"], check=True, timeout=500)


@pytest.fixture(scope="module")
def site(notebook_image: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A hub whose jobs and servers are containers."""
    if os.geteuid() != 0:
        absent("the trial account without a system entry is root's")
    state = tmp_path_factory.mktemp("journey") / "state"
    with installed(state, "--port", "0", "--launcher", "docker") as installation:
        yield installation


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a Chromium of our own; a picture of it is kept when the test fails."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        absent("chromium is not installed")
    ARTIFACTS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(90_000)
        yield page
        page.screenshot(path=ARTIFACTS / "last.png")
        browser.close()


def log_in(page: Page, site: Installation) -> None:
    page.goto(site.url)
    page.fill("#username_input", USER)
    page.fill("#password_input", (site.state / "password").read_text().strip())
    page.click("#login_submit")


def run_cell(page: Page) -> None:
    """Run the selected cell and wait for its end."""
    page.click("[data-jp-item-name=run] >> visible=true")
    finish(page)


def finish(page: Page) -> None:
    expect(page.locator('.jp-InputPrompt:has-text("[*]")')).to_have_count(0, timeout=120_000)


def saved(site: Installation, page: Page) -> dict[str, Any]:
    """The notebook as it lies in the user's home."""
    page.keyboard.press("Control+s")
    expect(page.locator(".jp-mod-dirty")).to_have_count(0)
    time.sleep(1)
    notebook: dict[str, Any] = json.loads((site.state / "homes" / USER / "tour.ipynb").read_text())
    return notebook


def outputs(notebook: dict[str, Any], beginning: str) -> list[dict[str, Any]]:
    """The outputs of the first cell that begins so."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and "".join(cell["source"]).startswith(beginning):
            return list(cell["outputs"])
    raise AssertionError(f"no cell begins with {beginning!r}")


def test_from_the_login_to_a_result_in_the_cell(site: Installation, page: Page) -> None:
    log_in(page, site)
    page.wait_for_selector("form#spawn_form")
    assert "free now" in page.inner_text("form#spawn_form")
    page.screenshot(path=ARTIFACTS / "1-options.png")
    page.click("form#spawn_form [type=submit]")
    page.wait_for_url("**/lab**")
    page.goto(f"{site.url}/user/{USER}/lab/tree/tour.ipynb?reset")
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
    page.click(".jp-Notebook .jp-Cell >> nth=0")
    page.keyboard.press("Escape")

    cells = page.locator(".jp-Notebook .jp-Cell")
    while "%%submit --cpus" not in page.inner_text(".jp-Notebook .jp-Cell.jp-mod-active"):
        run_cell(page)
    page.click("[data-jp-item-name=run] >> visible=true")
    page.wait_for_selector(".jp-OutputArea .jupyter-widgets >> text=running")
    page.wait_for_selector(".jp-OutputArea >> text=/cores.*memory/")
    page.screenshot(path=ARTIFACTS / "2-running.png")
    finish(page)
    page.wait_for_selector(".jp-OutputArea img")
    page.screenshot(path=ARTIFACTS / "3-result.png")
    assert cells.count() > 10

    while page.inner_text(".jp-Cell.jp-mod-active .jp-InputArea-editor").strip() != "job":
        run_cell(page)
    notebook = saved(site, page)
    result = outputs(notebook, "%%submit --cpus")
    kinds = [set(output.get("data", {})) | {output.get("name", "")} for output in result]
    assert any("image/png" in kind for kind in kinds)
    assert any("stdout" in kind for kind in kinds)
    assert any("text/html" in kind for kind in kinds)
    assert "0.001" in "".join(outputs(notebook, "scores.accuracy")[0]["data"]["text/plain"])


def test_the_job_ran_as_the_user_in_a_container_of_its_own(site: Installation) -> None:
    with site.client() as http:
        jobs = http.get("/jobs", params={"owner": USER}).json()["jobs"]
    server = next(job for job in jobs if job["spec"]["kind"] == "server")
    cell = next(job for job in jobs if job["spec"]["kind"] != "server")
    assert (server["state"], cell["state"]) == ("running", "succeeded")
    assert cell["spec"]["image"] == server["spec"]["image"]
    home = site.state / "homes" / USER
    assert home.stat().st_uid >= 20_000
    assert (home / "tour.ipynb").stat().st_uid == home.stat().st_uid
    client = docker.from_env()
    (container,) = [
        c
        for c in client.containers.list()
        if c.labels.get("perijove.attempt") == f"{server['id']}.1" and c.labels.get("perijove.owner") == USER
    ]
    assert container.attrs["Config"]["User"].split(":")[0] == str(home.stat().st_uid)
    assert container.attrs["HostConfig"]["CapDrop"] == ["ALL"]


def test_the_queue_page_opens_through_the_hub(site: Installation, page: Page) -> None:
    log_in(page, site)
    page.goto(f"{site.url}/services/perijove/")
    page.wait_for_selector("h1 >> text=Queue")
    assert "Jupyter server" in page.inner_text("table >> nth=0")
    page.screenshot(path=ARTIFACTS / "4-queue.png")


def test_the_server_stops_when_told(site: Installation, page: Page) -> None:
    log_in(page, site)
    page.goto(f"{site.url}/hub/home")
    page.click("#stop")
    page.wait_for_selector("#start:has-text('Start My Server')")
    with site.client() as http:
        jobs = http.get("/jobs", params={"owner": USER}).json()["jobs"]
    assert next(job for job in jobs if job["spec"]["kind"] == "server")["state"] == "killed"
    labels = [c.labels.get("perijove.owner") for c in docker.from_env().containers.list(all=True)]
    assert USER not in labels


def test_a_lost_laptop_is_of_no_use_after_a_sign_out(site: Installation, page: Page) -> None:
    log_in(page, site)
    page.goto(f"{site.url}/hub/spawn")
    page.wait_for_selector("form#spawn_form")
    page.click("form#spawn_form [type=submit]")
    page.wait_for_url("**/lab**")
    page.goto(f"{site.url}/services/perijove/account")
    token, stolen = site.token, page.context.request
    opens = ["/hub/home", "/services/perijove/account", f"/user/{USER}/api/contents"]

    def opened() -> list[int]:
        pages = [stolen.get(f"{site.url}{path}", max_redirects=0).status for path in opens]
        headers = {"Authorization": f"Bearer {token}"}
        rest = [f"{site.url}/services/perijove/api/v1/me", f"{site.url}/hub/api/user"]
        return [*pages, *(httpx.get(url, headers=headers, timeout=60).status_code for url in rest)]

    assert opened() == [200] * 5
    setup = (site.state / "hub" / "setup.token").read_text().strip()
    url = f"{site.url}/services/perijove/api/v1/users/{USER}/sign-out"
    told = httpx.post(url, headers={"Authorization": f"Bearer {setup}"}, timeout=60)
    assert told.status_code == 200, told.text
    wait_until(lambda: 200 not in opened(), "the end of all that was let in", 120)
