"""A real hub with its service: who gets in by the login page, and what is refused, said and written down."""

from __future__ import annotations

import json
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from chromium import chromium
from cryptography.fernet import Fernet
from login_site import Browser, LoginSite, login_site
from npm_provider import CLIENT as CAMPUS_CLIENT
from npm_provider import SECRET as CAMPUS_SECRET
from npm_provider import NpmProvider, npm_provider
from oidc import CLIENT, SECRET, OwnProvider, own_provider
from playwright.sync_api import Page, expect
from waiting import wait_until

from perijove_hub.private_files import kept_secret

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOGIN = """
login:
  providers:
    lab: {{title: The Lab, issuer: "{lab}", client_id: {client}, client_secret_file: secret, users: members}}
    other: {{issuer: "{other}", client_id: {client}, client_secret_file: secret}}
    campus: &campus
      issuer: "{campus}"
      client_id: {campus_client}
      client_secret_file: campus-secret
      scopes: [openid, profile, email, groups, offline_access]
      groups_claim: groups
      parameters: {{prompt: consent}}
      users: members
    visitors: {{<<: *campus, users: guests}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[OwnProvider]:
    with own_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def other() -> Iterator[OwnProvider]:
    with own_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def campus() -> Iterator[NpmProvider]:
    with npm_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def site(
    lab: OwnProvider, other: OwnProvider, campus: NpmProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoginSite]:
    state = tmp_path_factory.mktemp("login") / "state"
    issuers = {"lab": lab.issuer, "other": other.issuer, "campus": campus.issuer}
    login = LOGIN.format(**issuers, client=CLIENT, campus_client=CAMPUS_CLIENT)
    with login_site(state, login, {"secret": SECRET, "campus-secret": CAMPUS_SECRET}) as running:
        campus.hub = running.url
        campus.tell()
        yield running


GRETA = {"sub": "s-greta", "preferred_username": "greta", "email": "greta@example.org"}


@pytest.fixture(scope="module", autouse=True)
def greta(site: LoginSite, other: OwnProvider) -> Iterator[Browser]:
    """A guest who was let in when all began: the hub asks about a session half a minute later."""
    other.honest()
    other.person |= GRETA
    browser = Browser(site)
    assert browser.log_in("other").url.path == "/hub/waiting"
    assert [user["name"] for user in site.ask("GET", "/users?state=waiting")] == ["greta"]
    site.ask("POST", "/users/greta/activate", json={})
    assert browser.log_in("other").url.path == "/hub/token"
    yield browser
    browser.http.close()


@pytest.fixture(autouse=True)
def honest(lab: OwnProvider, other: OwnProvider) -> None:
    lab.honest()
    other.honest()
    other.person |= {"sub": "s-gauss", "preferred_username": "gauss", "email": "gauss@example.org"}


@pytest.fixture
def browser(site: LoginSite) -> Iterator[Browser]:
    made = Browser(site)
    yield made
    made.http.close()


def refused(answer: httpx.Response, status: int, words: str) -> None:
    """A page that says what to do, and nothing that the provider or the browser sent."""
    assert answer.status_code == status, answer.text
    assert words in answer.text and "To the login page" in answer.text
    assert "code-" not in answer.text and "Traceback" not in answer.text


def test_an_honest_answer_gets_in(browser: Browser) -> None:
    page = browser.log_in()
    assert (page.status_code, page.url.path) == (200, "/hub/token"), page.text
    assert browser.name == "ada"
    for cookie in browser.http.cookies.jar:
        assert (
            cookie.name == "_xsrf"
            or cookie.name == "jupyterhub-session-id"
            or cookie.has_nonstandard_attr("HttpOnly")
        )


def test_the_trial_account_gets_in_by_the_form(browser: Browser, site: LoginSite) -> None:
    wrong = browser.form(site.trial.name, "wrong")
    assert wrong.status_code == 403 and "Wrong name or password" in wrong.text
    assert re.search(r'id="password_input"[^>]*aria-describedby="pj-error" autofocus', wrong.text), wrong.text
    assert browser.name is None


def test_a_forged_token_is_refused_and_written_down(
    browser: Browser, lab: OwnProvider, site: LoginSite
) -> None:
    lab.claims = lambda claims: {**claims, "aud": "someone-else"}
    refused(browser.log_in(), 403, "could not be trusted")
    assert browser.name is None
    assert any("another audience" in str(entry["after"]) for entry in site.refusals())


def test_an_answer_comes_back_once(browser: Browser) -> None:
    url = browser.answer()
    kept = httpx.Cookies(browser.http.cookies)
    assert browser.until(url).status_code == 200
    refused(browser.until(url), 400, "used already")
    browser.http.cookies = kept
    refused(browser.until(url), 400, "used already")


def test_an_answer_is_of_no_use_in_another_browser(browser: Browser, site: LoginSite) -> None:
    victim = Browser(site)
    refused(victim.until(browser.answer()), 400, "in this browser")
    assert victim.name is None


@pytest.mark.parametrize("query", ["", "state=", "state=made-up&code=x", "state=%00&code=x", "error=x"])
def test_an_answer_to_nothing_is_refused(browser: Browser, query: str) -> None:
    refused(browser.until(f"/hub/login/lab/callback?{query}"), 400, "Start again")


def test_an_argument_twice_is_refused(browser: Browser) -> None:
    refused(browser.until(f"{browser.answer()}&state=x"), 403, "could not be trusted")


def test_the_answer_of_one_provider_is_none_of_another(browser: Browser) -> None:
    url = browser.answer("other").replace("/login/other/", "/login/lab/")
    refused(browser.until(url), 403, "could not be trusted")
    assert browser.name is None


OUTSIDE = [
    "https://evil.example/",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "javascript:alert(1)",
]


@pytest.mark.parametrize("wanted", [*OUTSIDE, "/hub/token?x=" + "y" * 3000])
def test_after_the_login_one_stays_here(browser: Browser, site: LoginSite, wanted: str) -> None:
    url = browser.until(
        f"/hub/login/lab?next={quote(wanted)}", lambda a: "/callback?" in a.headers["Location"]
    )
    landed = browser.http.get(url.headers["Location"])
    target = urlsplit(landed.headers["Location"])
    assert (target.netloc or urlsplit(site.url).netloc) == urlsplit(site.url).netloc
    # A backslash that browsers would read as a slash is encoded, and so a part of a path of this host.
    assert not landed.headers["Location"].startswith(("//", "/\\"))
    assert "code=" not in target.query and target.scheme in {"", "http"}


@pytest.mark.parametrize("name", ["nobody", "lab2", "..%2Flab"])
def test_a_provider_that_is_none_is_not_found(browser: Browser, name: str) -> None:
    assert browser.http.get(f"/hub/login/{name}").status_code == 404
    assert browser.http.get(f"/hub/login/{name}/callback").status_code == 404


def test_a_form_from_elsewhere_is_refused(browser: Browser, site: LoginSite) -> None:
    data = {"username": site.trial.name, "password": site.trial.password}
    assert browser.http.post("/hub/login", data=data).status_code == 403
    assert browser.name is None


def test_a_guest_waits_and_is_told_so(browser: Browser) -> None:
    page = browser.log_in("other")
    assert (page.status_code, page.url.path) == (200, "/hub/waiting")
    assert "waiting for activation" in page.text
    assert browser.name is None


def test_an_invitation_is_remembered_for_the_login(browser: Browser) -> None:
    page = browser.until("/hub/invitation?code=abcdefgh-0123_XYZ")
    assert page.url.path == "/hub/login" and "You were invited" in page.text
    refused(browser.until("/hub/invitation?code=%3Cscript%3E"), 400, "link is not complete")


def test_logging_out_goes_to_the_provider(browser: Browser, lab: OwnProvider) -> None:
    browser.log_in()
    away = browser.http.get("/hub/logout").headers["Location"]
    assert away.startswith(f"{lab.issuer}/logout?") and "id_token_hint=" in away
    assert browser.name is None


def test_a_certified_provider_from_the_login_to_the_logout(
    browser: Browser, campus: NpmProvider, site: LoginSite
) -> None:
    site.ask("PUT", "/projects/climate", json={"members": ["@climate"]})
    back = campus.log_in(browser.http, f"{site.url}/hub/login/campus?next=/hub/token", "emmy")
    assert browser.until(back).url.path == "/hub/token"
    assert browser.name == "emmy" and browser.projects() == ["climate"]
    away = browser.http.get("/hub/logout").headers["Location"]
    assert campus.log_out(browser.http, away).startswith(f"{site.url}/hub/login")
    assert not browser.name
    page = browser.until("/hub/login/campus")
    assert page.url.host == "localhost" and 'name="password"' in page.text, "logged out there too"


def log_in_at(page: Page, provider: str, name: str) -> None:
    """From the hub's login page through the pages of npm's provider."""
    page.get_by_role("link", name=f"Log in with {provider}").click()
    page.fill("[name=login]", name)
    page.fill("[name=password]", "any")
    page.click("[type=submit]")
    page.get_by_role("button", name="Continue").click()


@pytest.mark.journey
def test_a_newcomer_waits_and_a_member_comes_in(site: LoginSite, campus: NpmProvider) -> None:
    with chromium() as page:
        page.goto(f"{site.url}/hub/login")
        log_in_at(page, "visitors", "newton")
        page.wait_for_url(f"{site.url}/hub/waiting")
        expect(page.get_by_role("heading")).to_have_text("Your account is waiting for activation")
        page.context.clear_cookies()
        page.goto(f"{site.url}/hub/login?next=/hub/token")
        log_in_at(page, "campus", "emmy")
        page.wait_for_url(f"{site.url}/hub/token")
        assert "emmy" in page.inner_text("nav")


def test_a_guest_that_was_let_in_is_signed_out_again(greta: Browser, site: LoginSite) -> None:
    mine = httpx.get(
        f"{site.url}/services/perijove/account", cookies=greta.http.cookies, follow_redirects=True
    )
    assert mine.status_code == 200
    site.ask("POST", "/users/greta/sign-out")
    wait_until(lambda: greta.name is None, "the end of the hub's session", 90)
    assert greta.http.get("/hub/api/user", headers={"Referer": site.url}).status_code in {401, 403}
    acts = [entry["act"] for entry in site.ask("GET", "/audit?subject=user+greta")["entries"]]
    assert {"activate", "sign-out"} <= set(acts)


def test_what_the_provider_says_later_counts_while_one_works(campus: NpmProvider, site: LoginSite) -> None:
    """Who is removed there is out here, and groups follow; the hub asks anew, also after it was killed."""
    campus.accounts["gone"] = {"email": "gone@example.org", "email_verified": True}
    campus.tell()
    emmy, gone = Browser(site), Browser(site)
    for browser, name in ((emmy, "emmy"), (gone, "gone")):
        browser.until(campus.log_in(browser.http, f"{site.url}/hub/login/campus?next=/hub/token", name))
        assert browser.name == name
    campus.accounts["emmy"]["groups"] = ["ocean"]
    del campus.accounts["gone"]
    campus.tell()
    site.ask("PUT", "/projects/ocean", json={"members": ["@ocean"]})
    _an_hour_passes(site)
    site.installation.kill("hub")

    def answers() -> bool:
        try:
            return httpx.get(f"{site.api}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(lambda: not answers(), "the hub's end", 60)
    wait_until(answers, "the hub's return", 90)
    assert gone.name is None
    assert emmy.name == "emmy" and emmy.projects() == ["ocean"]


def _an_hour_passes(site: LoginSite) -> None:
    """For what the hub keeps of logins, encrypted."""
    fernet = Fernet(f"{kept_secret(site.state / 'hub' / 'crypt-key')}=")
    with closing(sqlite3.connect(site.state / "hub" / "jupyterhub.sqlite", timeout=60)) as db, db:
        for number, sealed in db.execute("SELECT id, encrypted_auth_state FROM users").fetchall():
            if sealed is not None:
                state = json.loads(fernet.decrypt(sealed))
                state["refreshed_at"] -= 3600
                sealed = fernet.encrypt(json.dumps(state).encode())
                db.execute("UPDATE users SET encrypted_auth_state = ? WHERE id = ?", (sealed, number))


def test_nothing_secret_is_in_the_log(site: LoginSite, browser: Browser) -> None:
    browser.log_in()
    secret: Any = (SECRET, CAMPUS_SECRET, "refresh-", "eyJ", site.trial.password)
    assert [word for word in secret if word in site.log] == []


HARMLESS = {"perijove.yaml", "fence"}
"""Files that anybody on the host may read: what the test wrote itself; the number of the lease."""


def test_nothing_of_the_state_directory_is_others_to_read_or_write(site: LoginSite, browser: Browser) -> None:
    browser.log_in()
    read, written = reached_by_others(site.state)
    assert {path.name for path in read if "dask" not in path.parts} <= HARMLESS, read
    assert written == []
    secrets_of = [
        site.trial.password,
        SECRET,
        *(path.read_text().strip() for path in site.state.glob("hub/*.token")),
    ]
    for path in read:
        assert not any(secret in path.read_text(errors="replace") for secret in secrets_of), path


def reached_by_others(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files below that somebody else could read, and what they could write, name by name."""
    read, written = [], []
    for path in folder.iterdir():
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        if mode & 0o022 and not stat.S_ISLNK(mode):
            written.append(path)
        if stat.S_ISDIR(mode) and mode & 0o011:
            more = reached_by_others(path)
            read += more[0]
            written += more[1]
        elif stat.S_ISREG(mode) and mode & 0o044:
            read.append(path)
    return read, written
