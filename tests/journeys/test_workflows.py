"""A workflow in a real browser: from a cell in JupyterLab, live, to the page of its run and back next day."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from installation import Installation, installed
from playwright.sync_api import Page, expect, sync_playwright
from tests.conftest import absent
from waiting import wait_until

pytestmark = [pytest.mark.journey, pytest.mark.slow, pytest.mark.timeout(600)]

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
SECONDS = 120_000
"""Milliseconds for whatever a browser waits for."""
expect.set_options(timeout=SECONDS)

# Steps wait at gates, so that the test sees each state for as long as it likes.
FLOW = """\
%%workflow digits -p rates=[0.3,0.1,0.03]
parameters: {rates: [1]}
defaults: {launcher: process, cpus: 0.1, memory: 200M}
steps:
  fetch: {command: [echo, images]}
  prepare:
    script: |
      #!/bin/bash
      echo '{"progress": 0.4, "text": "image 700 of 1797"}' >> "$PERIJOVE_JOB_DIR/display.jsonl"
      while [ ! -e GATES/prepare ]; do sleep 0.2; done
      base64 -d > "$PERIJOVE_JOB_DIR/output/digits.png" <<< PICTURE
    outputs: [digits.png]
    after: [fetch]
  train:
    script: |
      #!/bin/bash
      while [ ! -e GATES/train ]; do sleep 0.2; done
      echo "{\\"name\\": \\"loss\\", \\"value\\": ${{ item }}}" >> "$PERIJOVE_JOB_DIR/output/.recorded.jsonl"
    map: parameters:rates
    outputs: {loss: "record:loss"}
    after: [prepare]
  baseline:
    script: |
      #!/bin/bash
      while [ ! -e GATES/train ]; do sleep 0.2; done
    after: [prepare]
  report: {command: [BROKEN], after: [train, baseline]}
"""
HOSTILE = "<img src=x onerror=window.owned=1>"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAG7buVgAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A service whose jobs are plain processes."""
    state = tmp_path_factory.mktemp("flows") / "state"
    with installed(state, "--no-hub", "--launcher", "process", "--port", "0") as installation:
        yield installation


@contextmanager
def jupyterlab(site: Installation, folder: Path) -> Iterator[str]:
    """JupyterLab in `folder`, which finds the service as a user's does; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    options = [
        f"--port={port}", f"--ServerApp.root_dir={folder}", "--no-browser", "--allow-root",
        f"--IdentityProvider.token={token}", "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    env = {
        **os.environ,
        "PERIJOVE_URL": site.endpoint["url"],
        "PERIJOVE_TOKEN": site.token,
        "HOME": str(folder),
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/api/status", params={"token": token}).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(ready, "JupyterLab answers", 90)
        yield f"{url}/lab/tree/flow.ipynb?reset&token={token}"
    finally:
        # Asked to stop it waits for browsers; its kernels end when they see that it is gone.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)


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
        page.set_default_timeout(SECONDS)
        yield page
        page.screenshot(path=ARTIFACTS / "last-flow.png")
        browser.close()


def notebook(*cells: str) -> dict[str, Any]:
    made: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "id": f"c{i}",
            "metadata": {},
            "outputs": [],
            "source": cell,
            "execution_count": None,
        }
        for i, cell in enumerate(cells)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def run_cell(page: Page) -> None:
    page.click("[data-jp-item-name=run] >> visible=true")


def says(page: Page, label: str, words: str) -> None:
    """Wait until the box `label` of the first picture says `words`; the page may renew itself meanwhile."""
    picture = page.locator("svg.pj-dag >> visible=true").first
    told = re.compile(rf"^{label} .*?: .*{words}", re.DOTALL)
    expect(picture.locator("title").filter(has_text=told)).to_have_count(1)


def nothing_runs(page: Page) -> None:
    """A job's name is read, in its own cell and in the table of jobs, and is no markup."""
    for number in (2, 3):
        cell = page.locator(".jp-Notebook .jp-Cell").nth(number)
        cell.locator(".jp-InputPrompt").click()
        run_cell(page)
        expect(cell.locator(".jp-OutputArea").get_by_text(HOSTILE).first).to_be_visible()
        expect(cell.locator('.jp-InputPrompt:has-text("[*]")')).to_have_count(0)
        expect(cell.locator(".jp-OutputArea img")).to_have_count(0)
    assert page.evaluate("window.owned") is None


def test_from_a_cell_to_a_run_that_failed_and_was_resumed(
    site: Installation, page: Page, tmp_path: Path
) -> None:
    gates = tmp_path / "gates"
    gates.mkdir()
    flow = FLOW.replace("GATES", str(gates)).replace("PICTURE", PIXEL).replace("BROKEN", "no-such-program")
    cells = ("%load_ext perijove", flow, f"%%submit --shell --name '{HOSTILE}'\nexit 3", "%jobs")
    (tmp_path / "flow.ipynb").write_text(json.dumps(notebook(*cells)))
    with jupyterlab(site, tmp_path) as lab:
        page.goto(lab)
        page.wait_for_selector("text=| Idle")
        page.click(".jp-Notebook .jp-Cell >> nth=0")
        page.keyboard.press("Escape")
        run_cell(page)
        run_cell(page)
        picture = page.locator(".jp-OutputArea svg.pj-dag")
        expect(picture.locator("text").filter(has_text="40 %")).to_be_visible()
        page.screenshot(path=ARTIFACTS / "flow-1-running.png")
        page.click("button:has-text('Pause')")
        expect(page.locator(".jp-OutputArea >> text=/held/").first).to_be_visible()
        page.click("button:has-text('Continue')")
        (gates / "prepare").touch()
        expect(picture.locator("text").filter(has_text="0 of 3")).to_be_visible()
        page.screenshot(path=ARTIFACTS / "flow-2-mapped.png")

        with site.client() as http:
            [run] = http.get("/workflows").json()["workflows"]
        assert page.context.browser is not None
        page_of_run(site, page.context.browser.new_page(), run["id"], gates)

        expect(page.locator('.jp-InputPrompt:has-text("[*]")')).to_have_count(0)
        expect(page.locator(f"text=%workflow {run['id']} --resume").first).to_be_visible()
        nothing_runs(page)
        page.keyboard.press("Control+s")
        expect(page.locator(".jp-mod-dirty")).to_have_count(0)
    kept = json.loads((tmp_path / "flow.ipynb").read_text())["cells"][1]["outputs"]
    [shown] = [output for output in kept if "text/html" in output.get("data", {})]
    assert "application/vnd.jupyter.widget-view+json" not in shown["data"]
    # The next day, with another server and no kernel that knows the widgets.
    with jupyterlab(site, tmp_path) as lab:
        page.goto(lab)
        expect(page.locator(".jp-OutputArea svg.pj-dag text >> text=report")).to_be_visible()
        page.screenshot(path=ARTIFACTS / "flow-5-reopened.png")


def page_of_run(site: Installation, page: Page, run: int, gates: Path) -> None:
    """The page of the run, while it runs, when it has failed, and the run that goes on."""
    page.set_default_timeout(SECONDS)
    url = site.endpoint["url"]
    page.goto(f"{url}/?token={site.token}")
    page.goto(f"{url}/workflows")
    page.click(f"a >> text='{run}'")
    page.wait_for_selector("h1 >> text=digits")
    says(page, "fetch", "succeeded")
    page.screenshot(path=ARTIFACTS / "flow-3-page.png", full_page=True)
    (gates / "train").touch()
    # The page renews itself.
    page.wait_for_selector("p >> .state.failed")
    says(page, "train", "3 succeeded")
    says(page, "report", "failed")
    expect(page.locator("h2 >> text=Values recorded by train")).to_be_visible()
    expect(page.locator(".images img")).to_have_js_property("naturalWidth", 1)
    page.screenshot(path=ARTIFACTS / "flow-4-failed.png", full_page=True)
    with page.expect_download() as saved:
        page.click("a >> text=digits.png")
    assert Path(saved.value.path()).read_bytes().startswith(b"\x89PNG")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "a phone need not scroll sideways"
    page.screenshot(path=ARTIFACTS / "flow-4-phone.png", full_page=True)
    page.click("a >> text=/Resume/")
    page.click("button >> text=Resume")
    page.wait_for_url(lambda at: re.search(r"/workflows/\d+$", at) is not None and not at.endswith(f"/{run}"))
    page.wait_for_selector("p >> .state.failed")
    says(page, "train", "3 cached")
    page.close()
