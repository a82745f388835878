"""Where the service is, and the token that opens it.

In this order: ``PERIJOVE_URL`` with ``PERIJOVE_TOKEN`` (in a notebook started by a hub its own
``JUPYTERHUB_API_TOKEN`` serves); what ``perijove login`` stored; what ``perijove up`` left for the user who
runs it, in the directory ``PERIJOVE_STATE`` or else in the default one.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perijove.model.errors import UnavailableError, UserError


@dataclass(frozen=True, slots=True)
class Connection:
    """An address and a credential."""

    url: str
    """Without a slash at the end; the API is under ``/api/v1`` of it."""
    token: str = field(default="", repr=False)
    launchers: tuple[str, ...] = ()
    """Names of the launchers, when the source knows them."""
    source: str = ""
    """Where this was found, for messages."""


class NotConnectedError(UnavailableError):
    """No Perijove service is known. Set PERIJOVE_URL and PERIJOVE_TOKEN, or run "perijove login URL",
    or start one on this machine with "perijove up".
    """


def find_connection(env: Mapping[str, str] | None = None) -> Connection:
    """The service to talk to; :class:`NotConnectedError` when none is known."""
    env = os.environ if env is None else env
    found = _from_environment(env) or _from_login(env) or _from_endpoint(env)
    if found is None:
        raise NotConnectedError(
            'no Perijove service is known: set PERIJOVE_URL and PERIJOVE_TOKEN, run "perijove login URL",'
            ' or start one on this machine with "perijove up"'
        )
    return found


def _from_environment(env: Mapping[str, str]) -> Connection | None:
    url = env.get("PERIJOVE_URL")
    if not url:
        return None
    token = env.get("PERIJOVE_TOKEN") or env.get("JUPYTERHUB_API_TOKEN") or ""
    if not token and (login := _from_login(env)) and login.url == normal_url(url):
        token = login.token
    return Connection(normal_url(url), token, source="PERIJOVE_URL")


def stored_login(env: Mapping[str, str] | None = None) -> Connection | None:
    """What ``perijove login`` stored; None when nobody did."""
    return _from_login(os.environ if env is None else env)


def _from_login(env: Mapping[str, str]) -> Connection | None:
    return _from_file(login_file(env))


def _from_endpoint(env: Mapping[str, str]) -> Connection | None:
    return _from_file(state_directory(env) / "endpoint.json")


def _from_file(path: Path) -> Connection | None:
    try:
        content: Any = json.loads(path.read_text())
        return Connection(
            normal_url(content["url"]),
            str(content.get("token") or ""),
            tuple(str(name) for name in content.get("launchers") or ()),
            source=str(path),
        )
    except FileNotFoundError:
        return None
    except PermissionError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}); remove it and log in again") from error


def normal_url(url: str) -> str:
    """`url` without what people paste along; ``UserError`` unless it is an http(s) address."""
    text = url.strip().rstrip("/").removesuffix("/api/v1").rstrip("/")
    if not text.startswith(("http://", "https://")):
        raise UserError(
            f"not an address of a service: {url!r} (http://HOST... or https://HOST... is expected)"
        )
    return text


def state_directory(env: Mapping[str, str]) -> Path:
    """Where ``perijove up`` keeps its state unless told otherwise."""
    if given := env.get("PERIJOVE_STATE"):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/perijove")
    base = env.get("XDG_STATE_HOME") or str(_home(env) / ".local" / "state")
    return Path(base) / "perijove"


def login_file(env: Mapping[str, str] | None = None) -> Path:
    """Where ``perijove login`` keeps what it was told."""
    env = os.environ if env is None else env
    base = env.get("XDG_CONFIG_HOME") or str(_home(env) / ".config")
    return Path(base) / "perijove" / "login.json"


def store_login(connection: Connection) -> Path:
    """Keep a connection for later; the file is readable by its owner only, from its first byte on."""
    path = login_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".login-")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump({"url": connection.url, "token": connection.token}, file)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    return path


def forget_login() -> bool:
    """Remove what :func:`store_login` kept; False when there was nothing."""
    try:
        login_file().unlink()
    except FileNotFoundError:
        return False
    return True


def _home(env: Mapping[str, str]) -> Path:
    return Path(env["HOME"]) if env.get("HOME") else Path.home()
