"""OpenID Connect and a provider that lies as it is told to: each forged or malformed answer is refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oidc import (
    CLIENT,
    KEY,
    SECRET,
    OwnProvider,
    hmac_by_public_key,
    key,
    mock_provider,
    own_provider,
    unsigned,
)

from perijove_hub.auth.arrivals import Session, Verified
from perijove_hub.auth.attempt import Attempt, Spent
from perijove_hub.auth.configuration import ProviderSettings
from perijove_hub.auth.fetching import trusted
from perijove_hub.auth.id_token import ASYMMETRIC, Expected, check_id_token, public_keys
from perijove_hub.auth.oauth2 import PlainProvider
from perijove_hub.auth.oidc import OpenIdProvider
from perijove_hub.auth.presets import profile_of
from perijove_hub.auth.refusals import (
    DeclinedError,
    ForgedAnswerError,
    LoginRefusedError,
    ProviderDownError,
    UnverifiedEmailError,
)

BACK = "http://127.0.0.1/hub/login/lab/callback"
OTHER_KEY = key()


@pytest.fixture(scope="module")
def running() -> Iterator[OwnProvider]:
    with own_provider() as provider:
        yield provider


@pytest.fixture
def lab(running: OwnProvider) -> OwnProvider:
    running.honest()
    return running


def client(issuer: str, **more: Any) -> OpenIdProvider:
    settings = {"issuer": issuer, "client_id": CLIENT, "client_secret": SECRET, **more}
    return OpenIdProvider(profile_of("lab", ProviderSettings.model_validate(settings)), Path("/"))


async def came_back(provider: OpenIdProvider | PlainProvider) -> tuple[Attempt, dict[str, str]]:
    """A login up to the answer of the authorization endpoint."""
    attempt = Attempt.begin("lab", BACK, "")
    async with httpx.AsyncClient(verify=trusted(None)) as http:
        answer = await http.get(await provider.begin(attempt))
    return attempt, dict(parse_qsl(urlsplit(answer.headers["Location"]).query))


async def log_in(provider: OpenIdProvider | PlainProvider) -> Verified:
    return await provider.finish(*await came_back(provider))


async def test_an_honest_answer_says_who_it_is(lab: OwnProvider) -> None:
    lab.person |= {"name": "Ada", "groups": ["staff", "staff", 7, ""]}
    found = await log_in(client(lab.issuer, groups_claim="groups"))
    assert (found.subject, found.username, found.email, found.email_verified) == (
        "s-ada",
        "ada",
        "ada@example.org",
        True,
    )
    assert found.groups == ("staff", "7")
    assert found.session.refresh_token and found.session.id_token
    assert "refresh-" not in repr(found)


def changed(**more: Any) -> Callable[[OwnProvider], None]:
    """The ID token says something else; None leaves the claim out."""

    def change(lab: OwnProvider) -> None:
        kept = lambda claims: {k: v for k, v in {**claims, **more}.items() if v is not None}  # noqa: E731
        lab.claims = kept

    return change


def signing(sign: Callable[[OwnProvider], Callable[[dict[str, Any]], Any]]) -> Callable[[OwnProvider], None]:
    def change(lab: OwnProvider) -> None:
        lab.sign = sign(lab)

    return change


def answering(answer: Callable[[dict[str, Any]], Any]) -> Callable[[OwnProvider], None]:
    def change(lab: OwnProvider) -> None:
        lab.answer = answer

    return change


NOW = int(time.time())

FORGED: dict[str, tuple[Callable[[OwnProvider], None], str]] = {
    "issuer": (changed(iss="https://evil.example"), "another issuer"),
    "no issuer": (changed(iss=None), "another issuer"),
    "audience": (changed(aud="someone-else"), "another audience"),
    "audience missing": (changed(aud=None), "another audience"),
    "two audiences without azp": (changed(aud=[CLIENT, "x"]), "azp"),
    "two audiences, azp of the other": (changed(aud=[CLIENT, "x"], azp="x"), "azp"),
    "azp of another": (changed(azp="x"), "azp"),
    "nonce": (changed(nonce="of another login"), "nonce"),
    "nonce missing": (changed(nonce=None), "nonce"),
    "nonce no text": (changed(nonce=["x"]), "nonce"),
    "expired": (changed(exp=NOW - 120), "expired"),
    "never expires": (changed(exp=None), "lacks exp"),
    "expires at no time": (changed(exp="tomorrow"), "lacks exp"),
    "expires at true": (changed(exp=True), "lacks exp"),
    "issued at no time": (changed(iat=None), "lacks iat"),
    "from the future": (changed(iat=NOW + 3600, exp=NOW + 7200), "future"),
    "not in force yet": (changed(nbf=NOW + 3600), "not in force"),
    "nobody": (changed(sub=None), "names nobody"),
    "nobody by number": (changed(sub=7), "names nobody"),
    "at_hash": (changed(at_hash="AAAAAAAAAAAAAAAAAAAAAA"), "at_hash"),
    "alg none": (signing(lambda lab: unsigned), "signed in a way"),
    "alg HS256 with the public key": (signing(lambda lab: hmac_by_public_key), "signed in a way"),
    "another key with the same kid": (
        signing(lambda lab: lambda claims: lab.signed(claims, OTHER_KEY)),
        "signature",
    ),
    "a key nobody published": (
        signing(lambda lab: lambda claims: lab.signed(claims, OTHER_KEY, "two")),
        "does not publish",
    ),
    "no JWS": (signing(lambda lab: lambda claims: "abc"), "no JWS"),
    "a JWS of nothing": (signing(lambda lab: lambda claims: "e30.e30.e30"), "no JWS"),
    "endless": (signing(lambda lab: lambda claims: "a" * 100_000), "no ID token"),
    "no ID token": (answering(lambda a: {k: v for k, v in a.items() if k != "id_token"}), "no ID token"),
    "ID token no text": (answering(lambda a: {**a, "id_token": {}}), "no ID token"),
    "no access token": (answering(lambda a: {**a, "access_token": None}), "no access token"),
    "access token with a line break": (answering(lambda a: {**a, "access_token": "a\nb"}), "no access token"),
    "token type": (answering(lambda a: {**a, "token_type": "mac"}), "no known type"),
    "a list": (answering(lambda a: [a]), "no object"),
    "a page": (answering(lambda a: b"<html>"), "no JSON"),
    "endless answer": (answering(lambda a: b"[" + b" " * (2 << 20)), "more than"),
    "an error": (answering(lambda a: {"error": "invalid_grant"}), "invalid_grant"),
    "an error with words": (answering(lambda a: {"error": "<script>"}), "an error"),
}


@pytest.mark.parametrize(("change", "said"), FORGED.values(), ids=FORGED)
async def test_a_forged_answer_is_refused(
    lab: OwnProvider, change: Callable[[OwnProvider], None], said: str
) -> None:
    change(lab)
    with pytest.raises((ForgedAnswerError, DeclinedError), match=said) as refused:
        await log_in(client(lab.issuer))
    assert "script" not in f"{refused.value.detail}{refused.value.advice}"


BACKS: dict[str, tuple[Callable[[dict[str, str]], dict[str, str]], str]] = {
    "mix-up (RFC 9207)": (lambda a: {**a, "iss": "https://other.example"}, "another provider"),
    "no iss, though promised": (
        lambda a: {k: v for k, v in a.items() if k != "iss"},
        "another provider",
    ),
    "refused": (lambda a: {"error": "access_denied", "state": a["state"], "iss": a["iss"]}, "access_denied"),
    "no code": (lambda a: {**a, "code": ""}, "no code"),
    "a code nobody gave": (lambda a: {**a, "code": "made up"}, "invalid_grant"),
}


@pytest.mark.parametrize(("back", "said"), BACKS.values(), ids=BACKS)
async def test_a_forged_way_back_is_refused(lab: OwnProvider, back: Any, said: str) -> None:
    lab.back = back
    with pytest.raises((ForgedAnswerError, DeclinedError), match=said):
        await log_in(client(lab.issuer))


async def test_a_code_is_good_once_and_for_the_browser_that_asked(lab: OwnProvider) -> None:
    provider = client(lab.issuer)
    attempt, answer = await came_back(provider)
    _, theirs = await came_back(provider)
    with pytest.raises(DeclinedError):  # PKCE: the victim's code in the attacker's login
        await provider.finish(attempt, {**answer, "code": theirs["code"]})
    assert (await provider.finish(attempt, answer)).username == "ada"
    with pytest.raises(DeclinedError):
        await provider.finish(attempt, answer)


async def test_userinfo_about_somebody_else_is_refused(lab: OwnProvider) -> None:
    lab.claims = lambda claims: {k: v for k, v in claims.items() if k != "preferred_username"}
    assert (await log_in(client(lab.issuer))).username == "ada"
    lab.userinfo = lambda person: {**person, "sub": "s-eve"}
    with pytest.raises(ForgedAnswerError, match="somebody else"):
        await log_in(client(lab.issuer))


async def test_who_has_no_name_there_is_called_by_their_address(lab: OwnProvider) -> None:
    def without(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda claims: {name: value for name, value in claims.items() if name not in names}

    lab.claims = lab.userinfo = without("preferred_username")
    found = await log_in(client(lab.issuer))
    assert (found.subject, found.username) == ("s-ada", "ada")
    lab.claims = lab.userinfo = without("preferred_username", "email", "email_verified")
    assert (await log_in(client(lab.issuer))).username == "s-ada"
    for strict in ({"accounts": True, "users": "members"}, {"username_claim": "preferred_username"}):
        with pytest.raises(ForgedAnswerError, match="did not say preferred_username"):
            await log_in(client(lab.issuer, **strict))


DISCOVERIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "issuer": lambda d: {**d, "issuer": "https://evil.example"},
    "issuer with a slash": lambda d: {**d, "issuer": d["issuer"] + "/"},
    "plain http elsewhere": lambda d: {**d, "token_endpoint": "http://login.example.org/token"},
    "no keys": lambda d: {k: v for k, v in d.items() if k != "jwks_uri"},
    "no text": lambda d: {**d, "authorization_endpoint": ["x"]},
    "symmetric algorithms only": lambda d: {**d, "id_token_signing_alg_values_supported": ["HS256", "none"]},
    "a list": lambda d: [d],
}


@pytest.mark.parametrize("change", DISCOVERIES.values(), ids=DISCOVERIES)
async def test_a_forged_discovery_document_is_refused(lab: OwnProvider, change: Any) -> None:
    lab.discovery = change
    with pytest.raises(ForgedAnswerError):
        await log_in(client(lab.issuer))


async def test_keys_may_change_and_are_not_fetched_for_every_token(lab: OwnProvider) -> None:
    provider = client(lab.issuer)
    await log_in(provider)
    lab.published = [OTHER_KEY.as_dict(private=False) | {"kid": "two"}]
    lab.sign = lambda claims: lab.signed(claims, OTHER_KEY, "two")
    assert (await log_in(provider)).username == "ada"
    lab.sign = lambda claims: lab.signed(claims, OTHER_KEY, "three")
    before = lab.asked.count("/jwks")
    for _ in range(3):
        with pytest.raises(ForgedAnswerError):
            await log_in(provider)
    assert lab.asked.count("/jwks") == before


async def test_a_refresh_says_who_they_are_by_now(lab: OwnProvider) -> None:
    provider = client(lab.issuer, groups_claim="groups")
    first = await log_in(provider)
    lab.person["groups"] = ["new"]
    second = await provider.refresh(first.session, "s-ada")
    assert second is not None and second.groups == ("new",)
    assert second.session.refresh_token != first.session.refresh_token
    assert await provider.refresh(first.session, "s-ada") is None, "a refresh token is good once"


async def test_a_refresh_about_somebody_else_ends_the_session(lab: OwnProvider) -> None:
    provider = client(lab.issuer)
    first = await log_in(provider)
    lab.person["sub"] = "s-eve"
    assert await provider.refresh(first.session, "s-ada") is None


@pytest.mark.parametrize(
    "down", [(503, {}), (500, b"<html>"), (429, {}), (400, {"error": "temporarily_unavailable"})]
)
async def test_a_provider_that_is_down_ends_nobodys_session(lab: OwnProvider, down: Any) -> None:
    provider = client(lab.issuer)
    first = await log_in(provider)
    lab.refreshing = lambda: down
    with pytest.raises(ProviderDownError):
        await provider.refresh(first.session, "s-ada")


async def test_a_provider_that_is_away_is_said_to_be(lab: OwnProvider) -> None:
    with own_provider() as gone:
        issuer = gone.issuer
    with pytest.raises(ProviderDownError, match="Connect"):
        await log_in(client(issuer))


async def test_logging_out_names_the_session_at_the_provider(lab: OwnProvider) -> None:
    provider = client(lab.issuer)
    session = (await log_in(provider)).session
    url = await provider.logout_url(session, "https://hub.example.org/hub/login")
    words = dict(parse_qsl(urlsplit(url).query))
    assert url.startswith(f"{lab.issuer}/logout?")
    assert words["id_token_hint"] == session.id_token
    assert words["post_logout_redirect_uri"] == "https://hub.example.org/hub/login"
    assert await client(lab.issuer, logout=False).logout_url(session, "x") == ""
    assert await provider.logout_url(Session(), "x") == ""


@pytest.mark.parametrize("verified", [False, None, "yes", 1])
async def test_an_address_that_was_not_checked_identifies_nobody(lab: OwnProvider, verified: Any) -> None:
    lab.person["email_verified"] = verified
    with pytest.raises(UnverifiedEmailError):
        await log_in(client(lab.issuer, username_claim="email"))
    with pytest.raises(UnverifiedEmailError):
        await log_in(client(lab.issuer, email_domains=["example.org"]))
    assert not (await log_in(client(lab.issuer))).email_verified


async def test_whether_an_address_was_checked_may_stand_in_userinfo_alone(lab: OwnProvider) -> None:
    lab.claims = lambda claims: {k: v for k, v in claims.items() if k != "email_verified"}
    for more in ({"username_claim": "email"}, {"email_domains": ["example.org"]}):
        assert (await log_in(client(lab.issuer, **more))).email_verified
    lab.userinfo = lambda person: {**person, "email": "boss@example.org"}
    found = await log_in(client(lab.issuer, username_claim="email"))
    assert found.username == "boss@example.org", "what was checked is the address that was said with it"
    lab.userinfo = lambda person: {k: v for k, v in person.items() if k != "email"}
    with pytest.raises(UnverifiedEmailError):
        await log_in(client(lab.issuer, username_claim="email"))
    lab.claims = lambda claims: {k: v for k, v in claims.items() if k != "email"}
    lab.userinfo = lambda person: {**person, "email_verified": False}
    with pytest.raises(UnverifiedEmailError):
        await log_in(client(lab.issuer, username_claim="email"))


async def test_only_the_domains_that_may(lab: OwnProvider) -> None:
    assert await log_in(client(lab.issuer, email_domains=["Example.org"]))
    for address in ("ada@evil.org", "ada@example.org.evil.org", "ada@sub.example.org", "example.org"):
        lab.person["email"] = address
        with pytest.raises(LoginRefusedError, match="another domain"):
            await log_in(client(lab.issuer, email_domains=["example.org"]))


def github(lab: OwnProvider, **more: Any) -> PlainProvider:
    settings = {
        "preset": "github",
        "client_id": CLIENT,
        "client_secret": SECRET,
        "authorize_url": f"{lab.issuer}/login/oauth/authorize",
        "token_url": f"{lab.issuer}/login/oauth/access_token",
        "userinfo_url": f"{lab.issuer}/user",
        **more,
    }
    return PlainProvider(profile_of("hub", ProviderSettings.model_validate(settings)), Path("/"))


async def test_github_knows_people_by_number_and_lists_verified_addresses(lab: OwnProvider) -> None:
    lab.person = {"id": 4711, "login": "Ada-L", "email": "unchecked@evil.org", "name": "Ada"}
    lab.emails = [
        {"email": "other@example.org", "primary": False, "verified": True},
        {"email": "ada@example.org", "primary": True, "verified": True},
    ]
    found = await log_in(github(lab))
    assert (found.subject, found.username, found.email, found.email_verified) == (
        "4711",
        "Ada-L",
        "ada@example.org",
        True,
    )
    lab.emails[1]["verified"] = False
    found = await log_in(github(lab))
    assert (found.email, found.email_verified) == ("", False)
    with pytest.raises(UnverifiedEmailError):
        await log_in(github(lab, email_domains=["example.org"]))


NOBODIES: list[dict[str, Any]] = [
    {},
    {"login": "ada"},
    {"id": True, "login": "ada"},
    {"id": 1, "login": "a\0b"},
]


@pytest.mark.parametrize("person", NOBODIES)
async def test_userinfo_that_names_nobody_is_refused(lab: OwnProvider, person: dict[str, Any]) -> None:
    lab.person = person
    with pytest.raises(ForgedAnswerError):
        await log_in(github(lab))


async def test_the_mock_of_pypi_logs_people_in() -> None:
    with mock_provider() as issuer:
        provider = client(issuer, groups_claim="groups")
        attempt = Attempt.begin("lab", BACK, "")
        async with httpx.AsyncClient(verify=trusted(None)) as http:
            answer = await http.post(await provider.begin(attempt), data={"sub": "alice"})
        found = await provider.finish(attempt, dict(parse_qsl(urlsplit(answer.headers["Location"]).query)))
        assert (found.username, found.groups) == ("alice", ("research",))


def test_a_state_comes_back_once() -> None:
    now = 0.0
    spent = Spent(lambda: now)
    assert spent.spend("a")
    assert not spent.spend("a")
    assert spent.spend("b")


EXPECTED = Expected("https://i", CLIENT, frozenset(ASYMMETRIC), None)


@given(st.text(max_size=50) | st.none() | st.lists(st.text(max_size=5), max_size=3))
@settings(deadline=None, max_examples=50)
def test_nothing_that_is_no_token_is_taken_for_one(text: Any) -> None:
    with pytest.raises(ForgedAnswerError):
        check_id_token(text, [KEY], EXPECTED, 0.0)


ODD: list[Any] = [None, "", 7, [], {}, {"kty": "RSA"}, {"kty": ["RSA"]}, {"kty": "oct", "k": "AA"}, [[]]]


@pytest.mark.parametrize("one", ODD)
def test_keys_that_cannot_be_read_are_passed_over(one: Any) -> None:
    assert public_keys({"keys": [one]}) == []
    with pytest.raises(ForgedAnswerError):
        public_keys(one)
