"""Servers under names of their own: what may be set, and what follows from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from starlette.requests import Request

from perijove.model import ForbiddenError, OperatorError
from perijove_hub.hub_config import PREFIX, host_of
from perijove_hub.pages.session import Sessions
from perijove_hub.settings import Settings
from perijove_hub.up.engine import LauncherChoice
from perijove_hub.up.plan import Plan, UpOptions, make_plan
from perijove_hub.up.trial import TrialAccount

URL = "https://hub.example.org"


def settings(folder: Path, login: str) -> Settings:
    (folder / "perijove.yaml").write_text(f"login: {{{login}}}\n")
    return Settings.read(folder)


@pytest.mark.parametrize(
    "login",
    [
        "",
        "url: 'https://127.0.0.1'",
        "url: 'http://[::1]:8000'",
        "url: 'https://10.1'",
        "url: 'https://-a.b'",
    ],
)
def test_names_need_a_name(tmp_path: Path, login: str) -> None:
    with pytest.raises(OperatorError, match="subdomains need a url with a host's name"):
        settings(tmp_path, f"subdomains: true, {login}")


@pytest.mark.parametrize(
    "url", [f"{URL}/jupyter", "hub.example.org", "https://h:99999", "https://a@h", "ftp://h"]
)
def test_a_url_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(OperatorError, match=r"https://hub\.example\.org would be"):
        settings(tmp_path, f"url: '{url}'")


@pytest.mark.parametrize(
    ("url", "apart"), [("https://Hub.example.org/", True), ("http://hub.localhost:8000", False)]
)
def test_only_over_https_cookies_are_bound_to_the_host(tmp_path: Path, url: str, *, apart: bool) -> None:
    login = settings(tmp_path, f"subdomains: true, url: '{url}'").login
    assert login.apart is apart
    assert login.url == url.lower().rstrip("/"), "the proxy compares names letter by letter"


NAMES = st.text(st.sampled_from("ab1-_.@ßA"), min_size=1, max_size=8) | st.text(min_size=1, max_size=80)


@given(NAMES, NAMES)
@how(deadline=None)
def test_each_user_has_a_name_of_their_own_and_nobody_the_hubs(one: str, other: str) -> None:
    names = [host_of(name, "hub.example.org", "user") for name in (one, other)]
    for name in names:
        label, _, rest = name.partition(".")
        assert rest == "hub.example.org"
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", label)
        assert label[2:4] != "--", "those are reserved (RFC 5891, 4.2.3.1)"
    assert (one == other) == (names[0] == names[1])
    assert host_of(one, "hub.example.org", "service") == "hub.example.org"


def test_names_of_users_are_kept_where_they_can_be() -> None:
    assert host_of("ada-2", "h.example", "user") == "ada-2.h.example"
    assert host_of("ada_l", "h.example", "user").startswith("u-adal--")


def plan(folder: Path, names: str) -> Plan:
    ports = {"scheduler": 20_001, "service": 20_002, "hub": 20_003, "proxy": 20_004}
    trial, choice = TrialAccount("tour", "secret", 20_000), LauncherChoice("process", "")
    more = {"installation": "abc", "root": True, "names": names}
    return make_plan(UpOptions(folder), choice, ports, trial, {}, ["node"], **more)  # type: ignore[arg-type]


def test_up_calls_the_hub_by_its_name_and_its_client_needs_none(tmp_path: Path) -> None:
    named, plain = plan(tmp_path, f"{URL}:8443"), plan(tmp_path, "")
    assert (named.shown, named.host, named.url) == (f"{URL}:8443", "hub.example.org:8443", plain.url)
    assert named.client_url == f"http://127.0.0.1:20002{PREFIX}"
    assert (plain.shown, plain.host) == ("http://127.0.0.1:8000", "127.0.0.1:8000")
    assert plain.client_url == f"http://127.0.0.1:8000{PREFIX}"


class Hub:
    oauth_client_id, oauth_redirect_uri, oauth_authorization_url = "me", "https://h/back", "https://h/in"


def test_a_cookie_of_a_page_below_is_none_of_the_service() -> None:
    sessions = Sessions("key", PREFIX, Hub(), apart=True)
    away = sessions.login(f"{PREFIX}/")
    name, _, rest = away.headers["set-cookie"].partition("=")
    assert name == "__Host-perijove-login"
    assert "Path=/;" in rest and "Secure" in rest and "Domain" not in rest
    state = away.headers["location"].rpartition("state=")[2]
    value = rest.partition(";")[0]
    for cookie, good in ((f"{name}={value}", True), (f"perijove-login={value}", False)):
        request = Request({"type": "http", "headers": [(b"cookie", cookie.encode())]})
        if good:
            assert sessions.check_state(request, state) == f"{PREFIX}/"
        else:
            with pytest.raises(ForbiddenError):
                sessions.check_state(request, state)
    begun = sessions.begin("token").headers.getlist("set-cookie")
    assert [one.partition("=")[0] for one in begun] == ["__Host-perijove-session", "__Host-perijove-login"]
    assert all("Secure" in one and "Path=/;" in one for one in begun)
