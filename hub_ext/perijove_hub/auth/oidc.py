"""OpenID Connect: discovery, the code flow with PKCE, ID tokens, refresh and logout."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from joserfc.jwk import Key

from perijove_hub.auth import exchange
from perijove_hub.auth.arrivals import Session, Verified
from perijove_hub.auth.attempt import Attempt
from perijove_hub.auth.claims import completed, lacks, person
from perijove_hub.auth.configuration import must_be_https
from perijove_hub.auth.fetching import Fetcher
from perijove_hub.auth.id_token import ASYMMETRIC, Expected, UnknownKeyError, check_id_token, public_keys
from perijove_hub.auth.presets import Profile
from perijove_hub.auth.refusals import ForgedAnswerError, LoginRefusedError, ProviderDownError

METADATA_AGE = 3600.0
KEYS_APART = 60.0
"""Seconds between two times that keys are fetched because a token's was not among them."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a discovery document says (OpenID Connect Discovery 1.0, 3)."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str
    end_session_endpoint: str
    algorithms: frozenset[str]
    methods: list[str] | None
    names_itself: bool
    """Whether each authorization response says whose it is (RFC 9207)."""


def read_metadata(document: Mapping[str, Any], issuer: str) -> Metadata:
    """Raises :class:`ForgedAnswerError` unless it is the document of `issuer`, and complete."""
    if document.get("issuer") != issuer:
        raise ForgedAnswerError("the discovery document is of another issuer")
    offered = document.get("id_token_signing_alg_values_supported", ["RS256"])
    algorithms = frozenset(ASYMMETRIC) & {one for one in _list(offered) or () if isinstance(one, str)}
    if not algorithms:
        raise ForgedAnswerError("the provider signs ID tokens in no way that is accepted")
    return Metadata(
        _address(document, "authorization_endpoint"),
        _address(document, "token_endpoint"),
        _address(document, "jwks_uri"),
        _address(document, "userinfo_endpoint", needed=False),
        _address(document, "end_session_endpoint", needed=False),
        algorithms,
        _list(document.get("token_endpoint_auth_methods_supported")),
        document.get("authorization_response_iss_parameter_supported") is True,
    )


def _list(value: Any) -> list[Any] | None:
    return value if isinstance(value, list) else None


def _address(document: Mapping[str, Any], name: str, *, needed: bool = True) -> str:
    value = document.get(name)
    if value is None and not needed:
        return ""
    try:
        return must_be_https(value) if isinstance(value, str) else must_be_https("")
    except ValueError as error:
        raise ForgedAnswerError(f"the discovery document has no usable {name}") from error


class OpenIdProvider:
    """One provider; what it publishes is kept for a while."""

    def __init__(self, profile: Profile, state: Path) -> None:
        settings = profile.settings
        self.profile = profile
        self._fetcher = Fetcher(profile.title, settings.ca_file)
        self._tokens = exchange.TokenEndpoint(
            self._fetcher, settings.client_id, settings.secret(state), profile.title
        )
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: list[Key] | None = None
        self._sought = -KEYS_APART
        """When keys were last fetched for want of one."""
        self._seeking = asyncio.Lock()

    async def begin(self, attempt: Attempt) -> str:
        """Where the person is sent."""
        metadata = await self._discover()
        url = metadata.authorization_endpoint
        return exchange.authorization_url(url, self.profile, attempt, nonce=attempt.nonce)

    async def finish(self, attempt: Attempt, arguments: Mapping[str, str]) -> Verified:
        """Who came back; raises :class:`LoginRefusedError`."""
        metadata = await self._discover()
        said = arguments.get("iss")
        if (said is not None or metadata.names_itself) and said != self.profile.issuer:
            raise ForgedAnswerError("the answer is of another provider (iss)")
        code = exchange.code_of(arguments, self.profile.title)
        answer = await self._tokens.exchange(metadata.token_endpoint, attempt, code, metadata.methods)
        claims = await self._claims(metadata, answer, nonce=attempt.nonce)
        return await self._person(metadata, answer, claims, Session())

    async def refresh(self, session: Session, subject: str) -> Verified | None:
        """Who they are by now; None when the provider does not vouch for them any more.

        Raises :class:`ProviderDownError`.
        """
        metadata = await self._discover()
        try:
            answer = await self._tokens.refresh(
                metadata.token_endpoint, session.refresh_token, metadata.methods
            )
            if "id_token" in answer:
                claims = await self._claims(metadata, answer, nonce=None, subject=subject)
            else:
                claims = await self._userinfo(metadata, answer, subject)
            return await self._person(metadata, answer, claims, session)
        except ProviderDownError:
            raise
        except LoginRefusedError:
            return None

    async def logout_url(self, session: Session, back: str) -> str:
        """Where to log out at the provider (OpenID Connect RP-Initiated Logout 1.0); empty without."""
        if not self.profile.settings.logout or not session.id_token:
            return ""
        try:
            metadata = await self._discover()
        except (ProviderDownError, ForgedAnswerError):
            return ""
        url = metadata.end_session_endpoint
        words = {
            "id_token_hint": session.id_token,
            "client_id": self.profile.settings.client_id,
            "post_logout_redirect_uri": back,
        }
        return f"{url}{'&' if '?' in url else '?'}{urlencode(words)}" if url else ""

    async def _person(
        self, metadata: Metadata, answer: Mapping[str, Any], claims: dict[str, Any], before: Session
    ) -> Verified:
        if lacks(self.profile, claims) and metadata.userinfo_endpoint:
            userinfo = await self._userinfo(metadata, answer, claims["sub"])
            claims = completed(self.profile, claims, userinfo)
        refresh, id_token = answer.get("refresh_token"), answer.get("id_token")
        session = Session(
            refresh if isinstance(refresh, str) else before.refresh_token,
            id_token if isinstance(id_token, str) else before.id_token,
            exchange.expiry(answer),
        )
        return person(self.profile, claims, session)

    async def _userinfo(self, metadata: Metadata, answer: Mapping[str, Any], subject: str) -> dict[str, Any]:
        if not metadata.userinfo_endpoint:
            raise ForgedAnswerError("neither an ID token nor userinfo")
        headers = {"Authorization": f"Bearer {answer['access_token']}"}
        found = await self._fetcher.document("GET", metadata.userinfo_endpoint, headers=headers)
        if found.get("sub") != subject:  # 5.3.2: a token of somebody else may have been slipped in
            raise ForgedAnswerError("userinfo is about somebody else")
        return found

    async def _claims(
        self, metadata: Metadata, answer: Mapping[str, Any], nonce: str | None, subject: str | None = None
    ) -> dict[str, Any]:
        expected = Expected(
            self.profile.issuer,
            self.profile.settings.client_id,
            metadata.algorithms,
            nonce,
            str(answer["access_token"]),
            subject,
        )
        token = answer.get("id_token")
        keys = self._keys if self._keys is not None else await self._fetch_keys(metadata)
        try:
            return check_id_token(token, keys, expected, time.time())
        except UnknownKeyError:
            return check_id_token(token, await self._newer_keys(metadata, keys), expected, time.time())

    async def _newer_keys(self, metadata: Metadata, known: list[Key]) -> list[Key]:
        """The keys as they are by now; not asked for more than once a minute, whoever sends tokens."""
        async with self._seeking:
            now = time.monotonic()
            if now - self._sought >= KEYS_APART and self._keys is known:
                self._sought = now
                await self._fetch_keys(metadata)
            return self._keys or []

    async def _fetch_keys(self, metadata: Metadata) -> list[Key]:
        self._keys = public_keys(await self._fetcher.document("GET", metadata.jwks_uri))
        return self._keys

    async def _discover(self) -> Metadata:
        now = time.monotonic()
        if self._metadata is not None and now - self._metadata[0] < METADATA_AGE:
            return self._metadata[1]
        url = f"{self.profile.issuer.rstrip('/')}/.well-known/openid-configuration"
        try:
            found = read_metadata(await self._fetcher.document("GET", url), self.profile.issuer)
        except ProviderDownError:
            if self._metadata is None:
                raise
            return self._metadata[1]
        self._metadata = now, found
        return found
