"""The hub's login: local accounts, directories and providers, and the service that says who that is here."""

from __future__ import annotations

import asyncio
import pwd
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Protocol

from jupyterhub.auth import Authenticator
from jupyterhub.orm import new_token
from tornado.web import HTTPError
from traitlets import Bool, Unicode, default

from perijove_hub.auth.arrivals import Reception, Session, Standing, Verified
from perijove_hub.auth.attempt import Attempt, Spent
from perijove_hub.auth.configuration import LOCAL, LoginSettings
from perijove_hub.auth.ldap import Directory
from perijove_hub.auth.local import LocalAuthenticator, Throttle
from perijove_hub.auth.oauth2 import PlainProvider
from perijove_hub.auth.oidc import OpenIdProvider
from perijove_hub.auth.presets import Profile, profile_of
from perijove_hub.auth.refusals import LoginRefusedError, ProviderDownError
from perijove_hub.settings import Settings

REFRESH_LEAST, REFRESH_MOST = 60.0, 600.0
"""Seconds between two times that a provider is asked whether somebody is still theirs."""

WRITTEN_A_MINUTE = 60
"""Refusals that go to the audit log; the others are in the hub's log alone, so that nobody can fill it."""


class WaitingError(LoginRefusedError):
    """Who they are is known; somebody has to let them in first."""

    heading = "Your account waits for activation"


class TurnedAwayError(LoginRefusedError):
    """The service knows them and does not let them in."""


class Provider(Protocol):
    """OpenID Connect or plain OAuth 2."""

    profile: Profile

    async def begin(self, attempt: Attempt) -> str: ...
    async def finish(self, attempt: Attempt, arguments: Any) -> Verified: ...
    async def refresh(self, session: Session, subject: str) -> Verified | None: ...
    async def logout_url(self, session: Session, back: str) -> str: ...


class PerijoveAuthenticator(Authenticator):  # type: ignore[misc]
    """All ways into the hub, on one page; set up by ``login:`` of ``DIR/perijove.yaml``."""

    state = Unicode(config=True, help="The state directory.")
    service_url = Unicode(config=True, help="Address of Perijove's service, with its prefix.")
    token_file = Unicode(config=True, help="File with the token that the service knows the hub's login by.")
    local_accounts = Bool(
        True, config=True, help="Whether all local accounts may log in, or the trial's only."
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        state = Path(self.state)
        self.settings: LoginSettings = Settings(state=state).login
        self.local = LocalAuthenticator(parent=self)
        self.directories = {name: Directory(name, s, state) for name, s in self.settings.ldap.items()}
        self.providers = {
            name: _provider(profile_of(name, settings), state)
            for name, settings in self.settings.providers.items()
        }
        self.reception = Reception(self.service_url, Path(self.token_file))
        self.spent = Spent()
        self._throttle = Throttle()
        self._refreshing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._written: list[float] = []

    @default("enable_auth_state")
    def _keeps_state(self) -> bool:
        return True

    @default("auth_refresh_age")
    def _asks_again(self) -> int:
        return 30

    @default("allow_all")
    def _service_decides(self) -> bool:
        return True

    @property
    def accounts(self) -> list[tuple[str, str]]:
        """Whose names and passwords the form takes: names, and what people read."""
        local = [(LOCAL, "This machine")] if self.settings.local else []
        return [*((name, directory.title) for name, directory in self.directories.items()), *local]

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """The pages of the login; see JupyterHub's ``Authenticator.get_handlers``."""
        from perijove_hub.auth.handlers import HANDLERS

        return HANDLERS

    def is_admin(self, handler: Any, authentication: dict[str, Any]) -> Any:
        """Where the service does not say: as the hub is configured; local accounts by their groups too."""
        state = authentication.get("auth_state") or {}
        if state.get("provider") == LOCAL:
            return self.local.is_admin(handler, authentication)
        return super().is_admin(handler, authentication)

    async def authenticate(self, handler: Any, data: Any) -> dict[str, Any] | None:
        """Who logs in, as the service has it; None when name or password are wrong.

        `data` is a form's, or ``{"verified": Verified}`` from a provider's callback, with ``invitation``.
        Raises :class:`LoginRefusedError`.
        """
        given = data if isinstance(data, dict) else {}
        verified = given.get("verified")
        if not isinstance(verified, Verified):
            verified = await self._by_password(handler, given)
        if verified is None:
            return None
        invitation = str(given.get("invitation") or "")
        standing = await self.reception.arrive(verified, invitation, handler.request.remote_ip)
        if standing.state == "waiting":
            raise WaitingError(f"{verified.provider}: waiting for activation", standing.message)
        if standing.state != "active" or not standing.name:
            raise TurnedAwayError(f"{verified.provider}: {standing.state}", standing.message)
        await _forget_older(handler.find_user(standing.name), handler.db, standing)
        return {
            "name": standing.name,
            "admin": standing.admin,
            "auth_state": _kept(verified, max(time.time(), standing.valid_from)),
        }

    async def _by_password(self, handler: Any, data: dict[str, Any]) -> Verified | None:
        username, password = data.get("username"), data.get("password")
        if not isinstance(username, str) or not isinstance(password, str):
            return None
        account = data.get("account") or (LOCAL if self.settings.local else next(iter(self.directories), ""))
        if account in self.directories:
            return await self._from_directory(self.directories[account], username, password)
        if account != LOCAL or not self.settings.local:
            return None
        name = await self.local.authenticate(handler, {"username": username, "password": password})
        if name is None or not (self.local_accounts or name == self.local.trial_user):
            return None
        return Verified(LOCAL, name, name, full_name=_full_name(name))

    async def _from_directory(self, directory: Directory, username: str, password: str) -> Verified | None:
        name = f"{directory.name}/{username.strip().lower()}"
        if wait := self._throttle.wait(name):
            self.log.warning("login of %r refused for %.0f s after failures", name[:32], wait)
            return None
        # Noted beforehand, so that attempts made at the same time count too.
        self._throttle.failed(name)
        verified = await directory.check(username, password)
        if verified is not None:
            self._throttle.succeeded(name)
        return verified

    async def refresh_user(self, user: Any, handler: Any = None) -> bool | dict[str, Any]:
        """Whether a session still holds: the service is asked, and now and then the provider.

        A service or a provider that does not answer changes nothing. Raises ``HTTPError`` 403 when somebody
        who may not come in any more would change something by a token.
        """
        if handler is not None and not hasattr(handler, "_token_authenticated"):
            # JupyterHub 6.1 reads it of every handler and sets it for requests with tokens only.
            handler._token_authenticated = False
        try:
            standing = await self.reception.standing(user.name)
        except ProviderDownError:
            return True
        if standing.state != "active":
            by_token = handler is not None and handler._token_authenticated
            if by_token and handler.request.method not in {"GET", "HEAD"}:
                raise HTTPError(403, standing.message)
            return False
        state = await user.get_auth_state() or {}
        if await _forget_older(user, user.db, standing):
            return False
        if state.get("refresh_token") and not await self._still_theirs(user):
            return False
        if standing.admin is not None and standing.admin != user.admin:
            return {"name": user.name, "admin": standing.admin}
        return True

    async def _still_theirs(self, user: Any) -> bool:
        """Whether the provider still vouches for `user`.

        One request at a time asks: a refresh token used twice is taken for stolen (RFC 9700, 4.14.2).
        """
        async with self._refreshing[user.name]:
            state = await user.get_auth_state() or {}
            provider = self.providers.get(state.get("provider", ""))
            if provider is None or not state.get("refresh_token") or time.time() < _due(state):
                return True
            session = Session(state["refresh_token"], state.get("id_token", ""))
            try:
                verified = await provider.refresh(session, state["subject"])
                if verified is None:
                    self.log.warning("%s is not logged in at %s any more", user.name, provider.profile.name)
                    return False
                await user.save_auth_state(_kept(verified, state["login_at"]))
                if list(verified.groups) != state.get("groups"):
                    await self.reception.arrive(verified, "", "")
            except ProviderDownError as error:
                self.log.warning("%s: %s", provider.profile.name, error)
            return True

    async def write_down(self, handler: Any, provider: str, refusal: LoginRefusedError) -> None:
        """Log that somebody was turned away, and have the service keep it."""
        address = handler.request.remote_ip
        self.log.warning("login by %s from %s refused: %s", provider, address, refusal.detail)
        now = time.monotonic()
        self._written = [then for then in self._written if now - then < 60.0]
        # What the service refused itself, it has written down.
        if isinstance(refusal, WaitingError | TurnedAwayError) or len(self._written) >= WRITTEN_A_MINUTE:
            return
        self._written.append(now)
        try:
            await self.reception.refused(provider, refusal.detail, address)
        except ProviderDownError as error:
            self.log.warning("a refused login is in this log only: %s", error)


def _provider(profile: Profile, state: Path) -> Provider:
    return OpenIdProvider(profile, state) if profile.issuer else PlainProvider(profile, state)


def _kept(verified: Verified, login_at: float) -> dict[str, Any]:
    """What the hub keeps, encrypted, of a login."""
    session = verified.session
    return {
        "provider": verified.provider,
        "subject": verified.subject,
        "groups": list(verified.groups),
        "login_at": login_at,
        "refreshed_at": time.time(),
        "expires_at": session.expires_at,
        "refresh_token": session.refresh_token,
        "id_token": session.id_token,
    }


def _due(state: dict[str, Any]) -> float:
    """When the provider is asked again: at the access token's end, within limits."""
    since, until = state["refreshed_at"], state.get("expires_at") or 0.0
    return float(since + min(max(until - since, REFRESH_LEAST), REFRESH_MOST))


async def _forget_older(user: Any, db: Any, standing: Standing) -> bool:
    """Whether the last login of `user` is from before what is valid now; then all cookies of it are void.

    The hub's cookie names the user and no session: without a new name the stolen one would be good again
    after the next login.
    """
    if user is None or not standing.valid_from:
        return False
    state = await user.get_auth_state() or {}
    if float(state.get("login_at", 0.0)) >= standing.valid_from:
        return False
    user.orm_user.cookie_id = new_token()
    db.commit()
    return bool(state)


def _full_name(name: str) -> str:
    try:
        return pwd.getpwnam(name).pw_gecos.partition(",")[0]
    except KeyError:
        return ""
