"""Login providers for tests: PyPI's mock, and one of our own that lies as it is told to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import Key, RSAKey
from waiting import wait_until

CLIENT, SECRET = "hub", "hub secret & more"
PERSON = {"sub": "s-ada", "preferred_username": "ada", "email": "ada@example.org", "email_verified": True}


def key(kid: str = "one") -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


KEY = key()
"""Made once: keys are slow to find."""


class OwnProvider:
    """OpenID Connect and GitHub's OAuth 2 over HTTP; whoever comes is `person`.

    Each of the functions gets what would be sent and answers what is sent instead.
    """

    def __init__(self) -> None:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider._answer(self, "GET", {})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                provider._answer(self, "POST", _flat(body))

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self.honest()
        self.codes: dict[str, dict[str, str]] = {}
        self.refresh_tokens: set[str] = set()
        self.asked: list[str] = []
        """Paths of all requests."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def honest(self) -> None:
        """As a provider should be."""
        self.person: dict[str, Any] = dict(PERSON)
        self.emails: Any = []
        self.key: Key = KEY
        self.published: list[Any] = [KEY.as_dict(private=False)]
        self.discovery: Callable[[dict[str, Any]], Any] = lambda document: document
        self.back: Callable[[dict[str, str]], dict[str, str]] = lambda answer: answer
        self.claims: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
        self.sign: Callable[[dict[str, Any]], Any] = self.signed
        self.answer: Callable[[dict[str, Any]], Any] = lambda answer: answer
        self.userinfo: Callable[[dict[str, Any]], Any] = lambda person: person
        self.refreshing: Callable[[], tuple[int, Any] | None] = lambda: None
        """Status and answer to a refresh, in place of the right one."""

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def signed(self, claims: dict[str, Any], with_key: Key | None = None, kid: str = "one") -> str:
        algorithm = "RS256"
        header = {"alg": algorithm, "kid": kid}
        return jwt.encode(header, claims, with_key or self.key, algorithms=[algorithm])

    def document(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "end_session_endpoint": f"{self.issuer}/logout",
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            "authorization_response_iss_parameter_supported": True,
        }

    def _answer(self, request: BaseHTTPRequestHandler, method: str, form: dict[str, str]) -> None:
        parts = urlsplit(request.path)
        self.asked.append(parts.path)
        query = _flat(parts.query)
        if parts.path == "/.well-known/openid-configuration":
            _send(request, 200, self.discovery(self.document()))
        elif parts.path == "/jwks":
            _send(request, 200, {"keys": self.published})
        elif parts.path in {"/authorize", "/login/oauth/authorize"}:
            code = self.issue(query)
            answer = {"code": code, "state": query.get("state", ""), "iss": self.issuer}
            url = f"{query['redirect_uri']}?{urlencode(self.back(answer))}"
            _send(request, 302, None, {"Location": url})
        elif parts.path in {"/token", "/login/oauth/access_token"} and method == "POST":
            _send(request, *self._token(request, form))
        elif parts.path in {"/userinfo", "/user"} and self._knows(request):
            _send(request, 200, self.userinfo(dict(self.person)))
        elif parts.path == "/user/emails" and self._knows(request):
            _send(request, 200, self.emails)
        else:
            _send(request, 404, {"error": "not_found"})

    def issue(self, query: dict[str, str]) -> str:
        """A code, as for somebody who was at the authorization endpoint with `query`."""
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        return code

    def _knows(self, request: BaseHTTPRequestHandler) -> bool:
        return request.headers.get("Authorization") == "Bearer access"

    def _token(self, request: BaseHTTPRequestHandler, form: dict[str, str]) -> tuple[int, Any]:
        expected = base64.b64encode(f"{CLIENT}:{quote_plus(SECRET)}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {expected}":
            return 401, {"error": "invalid_client"}
        if form.get("grant_type") == "refresh_token":
            if instead := self.refreshing():
                return instead
            token = form.get("refresh_token", "")
            if token not in self.refresh_tokens:
                return 400, {"error": "invalid_grant"}
            self.refresh_tokens.discard(token)
            return 200, self.answer(self._tokens(""))
        query = self.codes.pop(form.get("code", ""), None)
        challenge = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        right = query is not None and (
            query["redirect_uri"] == form.get("redirect_uri")
            and query["code_challenge"] == _base64(challenge)
        )
        if query is None or not right:
            return 400, {"error": "invalid_grant"}
        return 200, self.answer(self._tokens(query.get("nonce", "")))

    def _tokens(self, nonce: str) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            **self.person,
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            **({"nonce": nonce} if nonce else {}),
        }
        refresh = f"refresh-{os.urandom(8).hex()}"
        self.refresh_tokens.add(refresh)
        return {
            "access_token": "access",
            "token_type": "Bearer",
            "expires_in": 300,
            "refresh_token": refresh,
            "id_token": self.sign(self.claims(claims)),
        }


def hmac_by_public_key(claims: dict[str, Any]) -> str:
    """HS256 with the provider's public key for a secret, as a careless verifier would take it."""
    text = _compact({"alg": "HS256", "kid": "one"}, claims)
    return f"{text}.{_base64(hmac.digest(KEY.as_pem(private=False), text.encode(), 'sha256'))}"


def unsigned(claims: dict[str, Any]) -> str:
    """``alg: none`` (RFC 7519, 6)."""
    return _compact({"alg": "none", "kid": "one"}, claims) + "."


def _compact(*parts: dict[str, Any]) -> str:
    return ".".join(_base64(json.dumps(part).encode()) for part in parts)


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@contextmanager
def own_provider() -> Iterator[OwnProvider]:
    provider = OwnProvider()
    try:
        yield provider
    finally:
        provider.close()


@contextmanager
def mock_provider() -> Iterator[str]:
    """PyPI's ``oidc-provider-mock``; its issuer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    program = Path(sys.executable).with_name("oidc-provider-mock")
    claims = {
        "sub": "alice",
        "preferred_username": "alice",
        "email": "alice@example.org",
        "groups": ["research"],
    }
    command = [str(program), "-p", str(port), "--user-claims", json.dumps(claims)]
    with _running(command, f"http://127.0.0.1:{port}/.well-known/openid-configuration"):
        yield f"http://localhost:{port}"


@contextmanager
def _running(command: list[str], url: str, env: dict[str, str] | None = None) -> Iterator[None]:
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        assert process.poll() is None, f"{command[0]} ended with status {process.returncode}"
        try:
            return httpx.get(url, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, f"{command[0]} answering", 60)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _flat(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}


def _send(
    request: BaseHTTPRequestHandler, status: int, value: Any, headers: dict[str, str] | None = None
) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    request.send_response(status)
    for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
        request.send_header(name, text)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
