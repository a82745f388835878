"""A certified provider as it is, oidc-provider of npm: what our side makes of its answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from npm_provider import CLIENT, SECRET, NpmProvider, npm_provider

from perijove_hub.auth.arrivals import Verified
from perijove_hub.auth.attempt import Attempt
from perijove_hub.auth.configuration import ProviderSettings
from perijove_hub.auth.oidc import OpenIdProvider
from perijove_hub.auth.presets import profile_of
from perijove_hub.auth.refusals import DeclinedError, ForgedAnswerError, UnverifiedEmailError

BACK = "http://127.0.0.1/hub/login/campus/callback"
SCOPES = ["openid", "profile", "email", "groups", "offline_access"]


@pytest.fixture(scope="module")
def campus() -> Iterator[NpmProvider]:
    with npm_provider() as provider:
        yield provider


def client(campus: NpmProvider, **more: Any) -> OpenIdProvider:
    settings = {
        "issuer": campus.issuer,
        "client_id": CLIENT,
        "client_secret": SECRET,
        "scopes": SCOPES,
        "groups_claim": "groups",
        # Without it no refresh token is given (OpenID Connect Core 1.0, 11).
        "parameters": {"prompt": "consent"},
        **more,
    }
    return OpenIdProvider(profile_of("campus", ProviderSettings.model_validate(settings)), Path("/"))


async def came_back(
    campus: NpmProvider, provider: OpenIdProvider, name: str = "emmy"
) -> tuple[Attempt, dict[str, str]]:
    attempt = Attempt.begin("campus", BACK, "")
    with httpx.Client(trust_env=False) as http:
        url = campus.log_in(http, await provider.begin(attempt), name)
    return attempt, dict(parse_qsl(urlsplit(url).query))


async def log_in(campus: NpmProvider, provider: OpenIdProvider, name: str = "emmy") -> Verified:
    return await provider.finish(*await came_back(campus, provider, name))


async def test_it_says_who_it_is_and_in_which_groups(campus: NpmProvider) -> None:
    found = await log_in(campus, client(campus))
    assert (found.subject, found.username, found.email, found.email_verified, found.groups) == (
        "emmy",
        "emmy",
        "emmy@example.org",
        True,
        ("climate",),
    )
    assert found.session.refresh_token and found.session.id_token and found.session.expires_at


async def test_a_code_is_good_once_and_with_its_verifier(campus: NpmProvider) -> None:
    provider = client(campus)
    attempt, answer = await came_back(campus, provider)
    _, theirs = await came_back(campus, provider)
    with pytest.raises(DeclinedError, match="invalid_grant"):
        await provider.finish(attempt, {**answer, "code": theirs["code"]})
    assert (await provider.finish(attempt, answer)).username == "emmy"
    with pytest.raises(DeclinedError, match="invalid_grant"):
        await provider.finish(attempt, answer)


async def test_it_says_whose_its_answers_are(campus: NpmProvider) -> None:
    """RFC 9207: it announces that it does, and so an answer without it is somebody else's."""
    provider = client(campus)
    attempt, answer = await came_back(campus, provider)
    assert answer["iss"] == campus.issuer
    for forged in ({**answer, "iss": "http://localhost:1"}, {k: v for k, v in answer.items() if k != "iss"}):
        with pytest.raises(ForgedAnswerError, match="another provider"):
            await provider.finish(attempt, forged)


async def test_an_issuer_that_is_written_otherwise_is_another(campus: NpmProvider) -> None:
    for issuer in (f"{campus.issuer}/", campus.issuer.replace("localhost", "127.0.0.1")):
        with pytest.raises(ForgedAnswerError, match="another issuer"):
            await client(campus, issuer=issuer).begin(Attempt.begin("campus", BACK, ""))


async def test_a_refresh_follows_groups_and_new_keys(campus: NpmProvider) -> None:
    provider = client(campus)
    first = await log_in(campus, provider)
    campus.accounts["emmy"]["groups"] = ["climate", "ocean"]
    campus.keys = "two"
    campus.tell()
    second = await provider.refresh(first.session, "emmy")
    assert second is not None and second.groups == ("climate", "ocean")
    assert second.session.refresh_token not in {"", first.session.refresh_token}
    assert await provider.refresh(second.session, "newton") is None


async def test_a_refresh_token_used_twice_ends_the_session(campus: NpmProvider) -> None:
    provider = client(campus)
    first = await log_in(campus, provider)
    second = await provider.refresh(first.session, "emmy")
    assert second is not None
    assert await provider.refresh(first.session, "emmy") is None
    assert await provider.refresh(second.session, "emmy") is None, (
        "the thief's is void too (RFC 9700, 4.14.2)"
    )


async def test_who_is_removed_there_is_not_vouched_for(campus: NpmProvider) -> None:
    provider = client(campus)
    campus.accounts["gone"] = {"email": "gone@example.org", "email_verified": True}
    campus.tell()
    first = await log_in(campus, provider, "gone")
    del campus.accounts["gone"]
    campus.tell()
    assert await provider.refresh(first.session, "gone") is None


async def test_an_address_that_it_did_not_verify_identifies_nobody(campus: NpmProvider) -> None:
    assert not (await log_in(campus, client(campus), "newton")).email_verified
    with pytest.raises(UnverifiedEmailError):
        await log_in(campus, client(campus, username_claim="email"), "newton")


async def test_another_secret_gets_nothing(campus: NpmProvider) -> None:
    with pytest.raises(DeclinedError, match="invalid_client"):
        await log_in(campus, client(campus, client_secret="guessed"))
