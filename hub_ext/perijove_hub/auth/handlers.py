"""Pages of the login: the page itself, to a provider and back, waiting, refused, invited, logged out."""

from __future__ import annotations

import json
import re
import time
from typing import Any
from urllib.parse import quote

from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.login import LoginHandler, LogoutHandler
from jupyterhub.utils import get_browser_protocol, url_path_join
from tornado.web import HTTPError

from perijove_hub.auth.arrivals import Session
from perijove_hub.auth.attempt import VALID, Attempt, cookie_of
from perijove_hub.auth.authenticator import PerijoveAuthenticator, Provider, WaitingError
from perijove_hub.auth.refusals import (
    ForgedAnswerError,
    LoginRefusedError,
    ProviderDownError,
    StaleLoginError,
)

INVITATION, TOLD = "perijove-invitation", "perijove-waiting"
INVITED = 3600
"""Seconds that an invitation's link is remembered for the login that follows."""

LONGEST_NEXT = 1000
ANNOUNCED = 30.0
"""Seconds for which announcements are kept."""

_CODE = re.compile(r"[A-Za-z0-9_-]{8,128}")
_DAY = 86_400


class Room(BaseHandler):  # type: ignore[misc]
    """What the pages of the login have in common."""

    @property
    def login(self) -> PerijoveAuthenticator:
        """The authenticator."""
        found: PerijoveAuthenticator = self.authenticator
        return found

    @property
    def site(self) -> str:
        """The hub as the browser sees it, without a path."""
        return self.login.settings.url or f"{get_browser_protocol(self.request)}://{self.request.host}"

    def keep(self, name: str, value: str, seconds: int) -> None:
        """A signed cookie for the pages of the login, Secure where the hub is https."""
        path, days = self.hub.base_url, seconds / _DAY
        self._set_cookie(
            self._own(name), value, path=path, expires_days=days, samesite="Lax", **self._secure()
        )

    def kept(self, name: str, seconds: int) -> bytes | None:
        """What :meth:`keep` kept, unless it is older."""
        found: bytes | None = self.get_secure_cookie(self._own(name), max_age_days=seconds / _DAY)
        return found

    def forget(self, name: str) -> None:
        """Undo :meth:`keep`."""
        self.clear_cookie(self._own(name), path=self.hub.base_url)

    def _own(self, name: str) -> str:
        """The cookie's name, one that no page of a subdomain can set where there are any."""
        return f"__Host-{name}" if self.login.settings.apart else name

    def _secure(self) -> dict[str, bool]:
        return {"secure": True} if self.site.startswith("https://") else {}

    def provider(self, name: str) -> Provider:
        """The provider `name`, else 404."""
        try:
            return self.login.providers[name]
        except KeyError:
            raise HTTPError(404) from None

    @property
    def invitation(self) -> str:
        """The code of the invitation that this browser followed, empty without."""
        return (self.kept(INVITATION, INVITED) or b"").decode()

    async def enter(self, data: dict[str, Any]) -> Any:
        """The user, logged in; None when name or password are wrong. Raises :class:`LoginRefusedError`."""
        invitation = self.invitation
        try:
            user = await self.login_user({**data, "invitation": invitation})
        except WaitingError:
            self.forget(INVITATION)
            raise
        if user is not None and invitation:
            self.forget(INVITATION)
        return user

    def let_wait(self, refusal: WaitingError) -> None:
        """To the page that says so; it may be loaded again without harm."""
        self.keep(TOLD, json.dumps({"advice": refusal.advice[:1000]}), VALID)
        self.redirect(url_path_join(self.hub.base_url, "waiting"))

    async def turn_away(self, provider: str, refusal: LoginRefusedError) -> None:
        """A page that says what to do."""
        await self.login.write_down(self, provider, refusal)
        self.set_status(refusal.status)
        self.finish(await self.render_template("refused.html", refusal=refusal))


class LoginPage(Room, LoginHandler):  # type: ignore[misc]
    """``/hub/login``: the form, and a button for each provider."""

    announced: tuple[float, list[str]] = (0.0, [])

    async def get(self) -> None:
        """The page; whoever is logged in goes on to where they wanted to."""
        await self._listen()
        await super().get()

    async def post(self) -> None:
        """Name and password of the form."""
        await self._listen()
        data = {name: self.get_body_argument(name, "", strip=name != "password") for name in _FIELDS}
        try:
            user = await self.enter(data)
        except WaitingError as refusal:
            self.let_wait(refusal)
            return
        except LoginRefusedError as refusal:
            await self.login.write_down(self, data["account"] or "local", refusal)
            await self._again(refusal.status, refusal.advice, data)
            return
        if user is None:
            wrong = LoginRefusedError("wrong name or password")
            await self.login.write_down(self, data["account"] or "local", wrong)
            await self._again(403, "Wrong name or password.", data)
            return
        self._jupyterhub_user = user
        self.redirect(self.get_next_url(user))

    async def _again(self, status: int, message: str, data: dict[str, str]) -> None:
        self.set_status(status)
        self.finish(await self._render(login_error=message, username=data["username"][:64]))

    def _render(self, login_error: str | None = None, username: str | None = None, **more: Any) -> Any:
        wanted = self._validate_next_url(self.get_argument("next", ""))
        begin = f"?next={quote(wanted)}" if wanted and len(wanted) <= LONGEST_NEXT else ""
        ways = [
            (provider.profile.title, url_path_join(self.hub.base_url, "login", name) + begin)
            for name, provider in self.login.providers.items()
        ]
        return super()._render(
            login_error=login_error,
            username=username,
            ways=ways,
            accounts=self.login.accounts,
            account=self.get_argument("account", ""),
            announcements=LoginPage.announced[1],
            invited=bool(self.invitation),
            **more,
        )

    async def _listen(self) -> None:
        """What is to be told to everybody; nothing, when the service cannot say."""
        now = time.monotonic()
        if now - LoginPage.announced[0] < ANNOUNCED and LoginPage.announced[0]:
            return
        try:
            LoginPage.announced = (now, await self.login.reception.announcements())
        except ProviderDownError:
            LoginPage.announced = (now, [])


_FIELDS = ("username", "password", "account")


class Begin(Room):
    """``/hub/login/NAME``: to the provider."""

    async def get(self, name: str) -> None:
        """Begin a login that only this browser can finish."""
        provider = self.provider(name)
        wanted = self._validate_next_url(self.get_argument("next", ""))
        back = self.site + url_path_join(self.hub.base_url, "login", name, "callback")
        attempt = Attempt.begin(name, back, wanted if len(wanted) <= LONGEST_NEXT else "")
        try:
            url = await provider.begin(attempt)
        except LoginRefusedError as refusal:
            await self.turn_away(name, refusal)
            return
        self.keep(cookie_of(attempt.state), attempt.saved(), VALID)
        self.redirect(url)


class Callback(Room):
    """``/hub/login/NAME/callback``: back from the provider."""

    async def get(self, name: str) -> None:
        """Finish the login that was begun in this browser."""
        provider = self.provider(name)
        try:
            arguments = self._arguments()
            attempt = self._attempt(name, arguments.get("state", ""))
            verified = await provider.finish(attempt, arguments)
            user = await self.enter({"username": verified.username, "verified": verified})
            if user is None:
                raise LoginRefusedError("the hub's configuration does not allow this user")
        except WaitingError as refusal:
            self.let_wait(refusal)
            return
        except LoginRefusedError as refusal:
            await self.turn_away(name, refusal)
            return
        self._jupyterhub_user = user
        self.redirect(attempt.next or self.get_next_url(user))

    def append_query_parameters(self, url: str, exclude: list[str] | None = None) -> str:
        """Nothing of what the provider sent goes on to other pages."""
        return url

    def _arguments(self) -> dict[str, str]:
        found = {name: self.get_query_arguments(name) for name in ("state", "code", "iss", "error")}
        if any(len(values) > 1 for values in found.values()):
            raise ForgedAnswerError("an argument came twice")  # RFC 6749, 3.1
        return {name: values[0] for name, values in found.items() if values}

    def _attempt(self, provider: str, state: str) -> Attempt:
        cookie = cookie_of(state)
        saved = self.kept(cookie, VALID) if state else None
        if saved is None:
            raise StaleLoginError("no such login was begun in this browser")
        self.forget(cookie)
        attempt = Attempt.load(saved)
        if attempt.state != state or not self.login.spent.spend(state):
            raise StaleLoginError("this login came back already")
        if attempt.provider != provider:
            raise ForgedAnswerError(f"an answer for {provider} to a login by {attempt.provider}")
        return attempt


class Waiting(Room):
    """``/hub/waiting``: known, and not let in yet."""

    async def get(self) -> None:
        """What the service said, for as long as the login would have taken."""
        told = self.kept(TOLD, VALID)
        advice = json.loads(told)["advice"] if told else ""
        self.finish(await self.render_template("waiting.html", advice=advice))


class Invited(Room):
    """``/hub/invitation?code=CODE``: the link of an invitation."""

    async def get(self) -> None:
        """Remember the code for the login that follows."""
        code = self.get_argument("code", "")
        if not _CODE.fullmatch(code):
            refusal = StaleLoginError("no code of an invitation")
            refusal.advice = "This link is not complete. Copy the whole link that you were sent."
            await self.turn_away("invitation", refusal)
            return
        self.keep(INVITATION, code, INVITED)
        self.redirect(url_path_join(self.hub.base_url, "login"))


class Logout(Room, LogoutHandler):  # type: ignore[misc]
    """``/hub/logout``: here, and at the provider that one came from."""

    away = ""

    async def default_handle_logout(self) -> None:
        """Find out where to go before the session ends."""
        user = self.current_user
        if user is not None:
            state = await user.get_auth_state() or {}
            provider = self.login.providers.get(state.get("provider", ""))
            if provider is not None:
                session = Session(id_token=state.get("id_token", ""))
                back = self.site + url_path_join(self.hub.base_url, "login")
                self.away = await provider.logout_url(session, back)
        await super().default_handle_logout()

    async def render_logout_page(self) -> None:
        """To the provider's logout, or to the login page."""
        if self.away:
            self.redirect(self.away)
            return
        await super().render_logout_page()


HANDLERS: list[tuple[str, type]] = [
    (r"/login", LoginPage),
    (r"/login/([a-z][a-z0-9-]*)", Begin),
    (r"/login/([a-z][a-z0-9-]*)/callback", Callback),
    (r"/waiting", Waiting),
    (r"/invitation", Invited),
    (r"/logout", Logout),
]
