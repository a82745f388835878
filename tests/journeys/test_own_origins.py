"""Notebook servers under names of their own: what a page of one can reach of the hub, in a real browser.

Names below ``localhost`` lead to this machine in a browser (RFC 6761, 6.3); `up` itself asks none of them.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from chromium import chromium
from login_site import LoginSite, login_site
from playwright.sync_api import Page
from tests.conftest import absent

pytestmark = [pytest.mark.journey, pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]

TRIED = """async urls => Promise.all(urls.map(async url => {
  try { return (await fetch(url, {credentials: 'include'})).status; } catch (error) { return 'refused'; }
}))"""


@pytest.fixture(scope="module")
def notebook_image(docker_url: str) -> None:
    """The notebook image, built unless it is there."""
    subprocess.run([sys.executable, "-m", "perijove_hub.image", "--if-engine"], check=True, timeout=500)


@pytest.fixture(scope="module")
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def site(notebook_image: None, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoginSite]:
    if os.geteuid() != 0:
        absent("the trial account without a system entry is root's")
    state = tmp_path_factory.mktemp("names") / "state"
    login = f"login: {{url: 'http://hub.localhost:{port}', subdomains: true}}\n"
    with login_site(state, login, {}, port=port, launcher="docker") as running:
        yield running


def start_server(page: Page, site: LoginSite) -> None:
    page.goto(f"{site.url}/hub/login?next=/hub/spawn")
    page.fill("#username_input", site.trial.name)
    page.fill("#password_input", site.trial.password)
    page.click("#login_submit")
    page.click("form#spawn_form [type=submit]")


def test_a_server_has_an_origin_of_its_own_and_none_of_the_hubs_cookies(site: LoginSite, port: int) -> None:
    assert site.url == f"http://hub.localhost:{port}", "people are told the name"
    with site.installation.client() as local:
        assert local.get("/me").json()["name"] == site.trial.name, "the client on this host needs none"
    verification = httpx.post(f"{site.installation.endpoint['url']}/api/v1/device/authorization").json()
    assert verification["verification_uri"] == f"{site.url}/services/perijove/device"
    with chromium() as page:
        start_server(page, site)
        own = f"http://{site.trial.name}.hub.localhost:{port}"
        page.wait_for_url(f"{own}/user/{site.trial.name}/lab**", wait_until="commit")
        page.goto(f"{site.url}/services/perijove/account")
        assert f"Account of {site.trial.name}" in page.inner_text("body")
        assert f"perijove login {site.url}/services/perijove" in page.inner_text("body")

        page.goto(f"{own}/user/{site.trial.name}/lab", wait_until="commit")
        assert page.title() == "JupyterLab" and page.evaluate("window.origin") == own
        sent = {cookie["name"] for cookie in page.context.cookies(f"{own}/user/{site.trial.name}/")}
        assert not {"jupyterhub-hub-login", "perijove-session"} & sent, sent
        kept = {cookie["name"] for cookie in page.context.cookies(f"{site.url}/services/perijove/")}
        assert "perijove-session" in kept
        theirs = ["/hub/token", "/hub/api/user", "/services/perijove/account", "/services/perijove/api/v1/me"]
        there = page.evaluate(TRIED, [f"{site.url}{path}" for path in theirs])
        assert there == ["refused"] * len(theirs)
        here = page.evaluate(TRIED, [f"{own}{path}" for path in theirs])
        assert all(status in {403, 404, "refused"} for status in here), here
