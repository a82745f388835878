"""What OAuth 2 providers of all kinds are asked (RFC 6749, RFC 7636), built by Authlib."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

import httpx
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from perijove_hub.auth.attempt import Attempt
from perijove_hub.auth.fetching import Fetcher
from perijove_hub.auth.presets import Profile
from perijove_hub.auth.refusals import DeclinedError, ForgedAnswerError, ProviderDownError

_ERROR = re.compile(r"[a-z_]{1,40}")
_BUSY = {"temporarily_unavailable", "server_error", "slow_down"}
BASIC, POST, NONE = "client_secret_basic", "client_secret_post", "none"


def authorization_url(url: str, profile: Profile, attempt: Attempt, **more: str) -> str:
    """Where the person is sent to say yes."""
    made: str = prepare_grant_uri(
        url,
        client_id=profile.settings.client_id,
        response_type="code",
        redirect_uri=attempt.redirect_uri,
        scope=" ".join(profile.scopes),
        state=attempt.state,
        code_challenge=create_s256_code_challenge(attempt.verifier),
        code_challenge_method="S256",
        **{**profile.settings.parameters, **more},
    )
    return made


def code_of(arguments: Mapping[str, str], title: str) -> str:
    """The code that came back. Raises :class:`DeclinedError` for an error in its place."""
    if error := arguments.get("error"):
        raise DeclinedError(
            f"the provider answered {named(error)}",
            f"{title} did not log you in. Start again, or choose another way to log in.",
        )
    if not (code := arguments.get("code")):
        raise ForgedAnswerError("no code came back")
    return code


def named(error: Any) -> str:
    """An OAuth error's name; what else a stranger may have put there is not repeated."""
    return error if isinstance(error, str) and _ERROR.fullmatch(error) else "an error"


class TokenEndpoint:
    """Where codes and refresh tokens are exchanged, as one client with its secret."""

    def __init__(self, fetcher: Fetcher, client_id: str, secret: str, title: str) -> None:
        self._fetcher, self._client_id, self._secret, self._title = fetcher, client_id, secret, title

    async def exchange(
        self, url: str, attempt: Attempt, code: str, methods: list[str] | None = None
    ) -> dict[str, Any]:
        """Tokens for a code. Raises :class:`DeclinedError` when it is not valid, or used already."""
        return await self._ask(
            url,
            methods,
            "authorization_code",
            code=code,
            redirect_uri=attempt.redirect_uri,
            code_verifier=attempt.verifier,
        )

    async def refresh(self, url: str, token: str, methods: list[str] | None = None) -> dict[str, Any]:
        """New tokens for a refresh token. Raises :class:`DeclinedError` when it is of no use any more."""
        return await self._ask(url, methods, "refresh_token", refresh_token=token)

    async def _ask(self, url: str, methods: list[str] | None, grant: str, **words: str) -> dict[str, Any]:
        body = prepare_token_request(grant, "", **words)
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        method = self._method(methods)
        # Authlib leaves out that both are encoded as in forms (RFC 6749, 2.3.1).
        encode = quote_plus if method == BASIC else str
        auth = ClientAuth(encode(self._client_id), encode(self._secret), auth_method=method)
        url, headers, body = auth.prepare("POST", url, headers, body)
        status, answer = await self._fetcher.any("POST", url, content=body, headers=headers)
        if not isinstance(answer, dict):
            raise ForgedAnswerError("the answer of the token endpoint is no object")
        if "error" in answer or status != httpx.codes.OK:
            error = named(answer.get("error"))
            if status == httpx.codes.TOO_MANY_REQUESTS or error in _BUSY:
                raise ProviderDownError(self._title, f"status {status} ({error}) from the token endpoint")
            raise DeclinedError(f"the token endpoint answered {error}")
        kind, token = answer.get("token_type"), answer.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ForgedAnswerError("the token endpoint gave no access token")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise ForgedAnswerError("the access token is of no known type")
        return answer

    def _method(self, offered: list[str] | None) -> str:
        if not self._secret:
            return NONE
        # Without a word about it basic is meant (OpenID Connect Discovery 1.0, 3).
        return POST if offered is not None and BASIC not in offered and POST in offered else BASIC


def expiry(answer: Mapping[str, Any]) -> float | None:
    """When an access token ends, as its answer says."""
    seconds = answer.get("expires_in")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        return None
    return time.time() + seconds
