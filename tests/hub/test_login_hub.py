"""A real hub with its service: who gets in by the login page, and what is refused, said and written down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from login_site import Browser, LoginSite, login_site
from oidc import CLIENT, SECRET, OwnProvider, own_provider
from waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOGIN = """
login:
  providers:
    lab: {{title: The Lab, issuer: "{lab}", client_id: {client}, client_secret_file: secret, users: members}}
    other: {{issuer: "{other}", client_id: {client}, client_secret_file: secret}}
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
def site(
    lab: OwnProvider, other: OwnProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoginSite]:
    state = tmp_path_factory.mktemp("login") / "state"
    login = LOGIN.format(lab=lab.issuer, other=other.issuer, client=CLIENT)
    with login_site(state, login, {"secret": SECRET}) as running:
        yield running


@pytest.fixture(autouse=True)
def honest(lab: OwnProvider, other: OwnProvider) -> None:
    lab.honest()
    other.honest()
    other.person |= {"sub": "s-greta", "preferred_username": "greta", "email": "greta@example.org"}


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


def test_a_guest_that_is_let_in_and_signed_out_again(browser: Browser, site: LoginSite) -> None:
    browser.log_in("other")
    assert [user["name"] for user in site.ask("GET", "/users?state=waiting")] == ["greta"]
    site.ask("POST", "/users/greta/activate", json={})
    assert browser.log_in("other").url.path == "/hub/token"
    assert browser.name == "greta"
    mine = httpx.get(
        f"{site.url}/services/perijove/account", cookies=browser.http.cookies, follow_redirects=True
    )
    assert mine.status_code == 200
    site.ask("POST", "/users/greta/sign-out")
    wait_until(lambda: browser.name is None, "the end of the hub's session", 90)
    assert browser.http.get("/hub/api/user", headers={"Referer": site.url}).status_code in {401, 403}
    acts = [entry["act"] for entry in site.ask("GET", "/audit?subject=user+greta")["entries"]]
    assert {"activate", "sign-out"} <= set(acts)


def test_an_invitation_is_remembered_for_the_login(browser: Browser) -> None:
    page = browser.until("/hub/invitation?code=abcdefgh-0123_XYZ")
    assert page.url.path == "/hub/login" and "You were invited" in page.text
    refused(browser.until("/hub/invitation?code=%3Cscript%3E"), 400, "link is not complete")


def test_logging_out_goes_to_the_provider(browser: Browser, lab: OwnProvider) -> None:
    browser.log_in()
    away = browser.http.get("/hub/logout").headers["Location"]
    assert away.startswith(f"{lab.issuer}/logout?") and "id_token_hint=" in away
    assert browser.name is None


def test_nothing_secret_is_in_the_log(site: LoginSite, browser: Browser) -> None:
    browser.log_in()
    secret: Any = (SECRET, "refresh-", "eyJ", site.trial.password)
    assert [word for word in secret if word in site.log] == []
