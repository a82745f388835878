"""The requests made of an engine for an attempt, noted as they were sent."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import docker
import requests

from perijove.model import Attempt
from perijove_spawners.calls import shown
from perijove_spawners.launcher import EngineCall, Launch

_MESSAGE = 500
_attempt: ContextVar[Attempt | None] = ContextVar("attempt", default=None)

Note = Callable[[Attempt, EngineCall], None]
Verb = TypeVar("Verb", bound=Callable[..., Any])


def noted(verb: Verb) -> Verb:
    """What this verb of a launcher asks of the engine it asks for the attempt, or launch, it is given."""

    @functools.wraps(verb)
    async def noting(launcher: Any, subject: Launch | Attempt, *args: Any, **more: Any) -> Any:
        token = _attempt.set(subject.attempt if isinstance(subject, Launch) else subject)
        try:
            return await verb(launcher, subject, *args, **more)
        finally:
            _attempt.reset(token)

    return cast("Verb", noting)


class NotingClient(docker.APIClient):
    """The SDK's client; notes what it sends while a verb that is :func:`noted` is at work."""

    def __init__(self, note: Note, **options: Any) -> None:
        self._note = note
        super().__init__(**options)

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request, as all methods of the SDK do."""
        attempt = _attempt.get()
        if attempt is None:
            return super().send(request, **options)
        at, began = time.time(), time.monotonic()
        answer, message = None, ""
        try:
            response: requests.Response = super().send(request, **options)
            answer = response.status_code
            message = "" if response.ok else _said(response)
            return response
        except Exception as error:
            message = str(error)[:_MESSAGE]
            raise
        finally:
            milliseconds = 1000 * (time.monotonic() - began)
            what = f"{request.method} {request.path_url}"
            self._note(attempt, EngineCall(what, _body(request), at, answer, milliseconds, message))


def _said(response: requests.Response) -> str:
    try:
        text = str(response.json()["message"])
    except (ValueError, LookupError, TypeError):
        text = response.text
    return text.strip()[:_MESSAGE]


def _body(request: requests.PreparedRequest) -> Any:
    """The JSON that was sent, with values of variables hidden; None for anything else, such as an archive."""
    if not isinstance(request.body, str | bytes):
        return None
    try:
        body = json.loads(request.body)
    except ValueError:
        return None
    if isinstance(body, dict) and isinstance(body.get("Env"), list):
        env = shown(dict(str(each).split("=", 1) for each in body["Env"] if "=" in str(each)))
        body["Env"] = [f"{name}={value}" for name, value in env.items()]
    return body
