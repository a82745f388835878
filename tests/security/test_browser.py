"""A page that a user's notebook server serves, in the browser of somebody else who is logged in.

Without subdomains it has the origin of the hub. What it can fetch, post, frame and read must be of no use.
The hostile server is one of our own, put where a notebook server of ``mallory`` would be: the proxy cannot
tell the difference.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from login_site import LoginSite, login_site
from oidc import CLIENT, SECRET, own_provider
from playwright.sync_api import Page, sync_playwright
from tests.conftest import absent

pytestmark = [pytest.mark.journey, pytest.mark.slow, pytest.mark.timeout(300)]

CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-popup-blocking"]
PROXY_TOKEN = "of-this-test-alone"
LOGIN = """
login:
  providers:
    lab: {{issuer: "{lab}", client_id: {client}, client_secret_file: secret, users: members}}
"""
EVIL = """<!doctype html><title>a harmless notebook</title><script>
async function tried(url, options) {
  try {
    const answer = await fetch(url, {credentials: 'include', ...options});
    return {status: answer.status, type: answer.type, text: await answer.text()};
  } catch (error) { return {status: 0, type: 'error', text: String(error)}; }
}
function framed(url) {
  return new Promise(done => {
    const frame = document.createElement('iframe');
    frame.src = url;
    frame.onload = () => {
      try { done(frame.contentDocument ? frame.contentDocument.body.innerText : ''); }
      catch (error) { done(''); }
    };
    document.body.append(frame);
  });
}
async function opened(url) {
  const other = window.open(url);
  for (let tries = 0; tries < 20; tries++) {
    await new Promise(done => setTimeout(done, 100));
    try { const text = other.document.body.innerText; if (text.length > 20) return text; }
    catch (error) { return ''; }
  }
  return '';
}
const json = {'Content-Type': 'application/json'};
const form = {'Content-Type': 'application/x-www-form-urlencoded'};
async function disguised(url) {
  const here = location.href, found = [
    await tried(url, {referrer: '/hub/home'}),
    await tried(url, {headers: {Authorization: 'Bearer of-nothing'}}),
    await tried(url, {mode: 'no-cors', referrer: '/hub/home'}),
    await tried('/hub/api/users', {mode: 'no-cors', referrer: '/hub/home'}),
    await tried('/hub/api/user', {referrer: '/hub/home'}),
  ];
  // The address of a page is its script's to change, and with it the Referer, and which cookies it sees.
  history.replaceState(null, '', '/hub/home');
  found.push(await tried(url), {text: document.cookie});
  history.replaceState(null, '', here);
  return found.map(answer => answer.text).join(' ');
}
async function attack() {
  const service = '/services/perijove', page = await tried('/hub/token');
  const xsrf = (page.text.match(/xsrf_token: "([^"]+)"/) || [, ''])[1];
  const account = await tried(service + '/account');
  const token = (account.text.match(/name="form" value="([^"]+)"/) || [, ''])[1];
  return {
    cookies: document.cookie,
    hub_token: await tried('/hub/api/users/ada/tokens', {method: 'POST', headers: json, body: '{}'}),
    hub_token_with_what_was_read: await tried('/hub/api/users/ada/tokens?_xsrf=' + xsrf,
      {method: 'POST', headers: {...json, 'X-XSRFToken': xsrf}, body: '{}'}),
    hub_user: await tried('/hub/api/user'),
    rest_read: await tried(service + '/api/v1/jobs'),
    rest_token: await tried(service + '/api/v1/tokens',
      {method: 'POST', headers: json, body: '{"name": "x"}'}),
    account_form: await tried(service + '/account',
      {method: 'POST', headers: form, body: 'act=create&name=x&scope=submit&days=90&form=' + token}),
    read_form: token,
    disguised: await disguised('/hub/token'),
    frame: await framed(service + '/account'),
    hub_frame: await framed('/hub/token'),
    opened: await opened('/hub/token'),
    opened_account: await opened(service + '/account'),
  };
}
</script><body></body>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoginSite]:
    state = tmp_path_factory.mktemp("browser") / "state"
    with own_provider() as lab:
        lab.honest()
        login = LOGIN.format(lab=lab.issuer, client=CLIENT)
        env = {"CONFIGPROXY_AUTH_TOKEN": PROXY_TOKEN}
        with login_site(state, login, {"secret": SECRET}, env) as running, _hostile() as target:
            port = json.loads((state / "hub" / "options.json").read_text())["proxy_api_port"]
            httpx.post(
                f"http://127.0.0.1:{port}/api/routes/user/mallory",
                json={"target": target},
                headers={"Authorization": f"token {PROXY_TOKEN}"},
            ).raise_for_status()
            yield running


class _hostile:  # noqa: N801 - used as a verb
    """A server whose every answer is the evil page."""

    def __enter__(self) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(EVIL.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def page(site: LoginSite) -> Iterator[Page]:
    """Of somebody who is logged in, and has been on the pages of the service."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        absent("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        page = browser.new_page()
        page.goto(f"{site.url}/hub/login/lab?next=/hub/home")
        page.goto(f"{site.url}/services/perijove/account")
        assert "Account of ada" in page.inner_text("body")
        yield page
        browser.close()


def test_a_notebooks_page_can_do_nothing_in_the_name_of_who_looks_at_it(site: LoginSite, page: Page) -> None:
    page.goto(f"{site.url}/user/mallory/evil.html")
    assert page.title() == "a harmless notebook"
    found = page.evaluate("attack()")
    assert "session" not in found["cookies"] and "jupyterhub-hub-login" not in found["cookies"]
    for what in ("hub_token", "hub_token_with_what_was_read", "hub_user"):
        assert found[what]["status"] in {0, 403}, (what, found[what])
    for what in ("rest_read", "rest_token"):
        assert found[what]["status"] == 401, (what, found[what])
    assert "xsrf_token" not in found["disguised"] and "_xsrf=" not in found["disguised"], found["disguised"]
    assert '"name"' not in found["disguised"], found["disguised"]
    assert found["read_form"] == ""
    assert found["account_form"]["status"] == 403, found["account_form"]
    assert "Devices and tokens" not in found["frame"]
    for what in ("hub_frame", "opened", "opened_account"):
        assert "Token" not in found[what] and "Devices and tokens" not in found[what], (what, found[what])
    mine = site.ask("GET", "/tokens?owner=ada")
    assert (mine.get("tokens") if isinstance(mine, dict) else mine) == []


def test_names_are_text_wherever_they_are_shown(site: LoginSite, page: Page) -> None:
    hostile = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
    site.ask("POST", "/announcements", json={"text": hostile, "public": True})
    page.goto(f"{site.url}/services/perijove/account")
    row = page.locator("form", has=page.locator("[name=name]")).first
    row.locator("[name=name]").fill(hostile[:100])
    row.locator("button").click()
    for path in ("/services/perijove/account", "/services/perijove/", "/hub/home"):
        page.goto(f"{site.url}{path}")
        page.wait_for_load_state("networkidle")
        assert page.title() != "broken", path
    fresh = page.context.browser
    assert fresh is not None
    login = fresh.new_page()
    login.goto(f"{site.url}/hub/login")
    assert login.title() != "broken"
    assert "onerror" in login.inner_text("body")
    login.close()
