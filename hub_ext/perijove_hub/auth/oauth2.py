"""Plain OAuth 2 providers: what they say at their userinfo address is who somebody is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from perijove_hub.auth import exchange
from perijove_hub.auth.arrivals import Session, Verified
from perijove_hub.auth.attempt import Attempt
from perijove_hub.auth.claims import person, primary_address
from perijove_hub.auth.fetching import Fetcher
from perijove_hub.auth.presets import Profile


class PlainProvider:
    """A provider without ID tokens, GitHub for example; mix-up is kept out by a redirect URI of its own
    (RFC 9700, 4.4.2.2).
    """

    def __init__(self, profile: Profile, state: Path) -> None:
        settings = profile.settings
        self.profile = profile
        self._fetcher = Fetcher(profile.title, settings.ca_file)
        self._tokens = exchange.TokenEndpoint(
            self._fetcher, settings.client_id, settings.secret(state), profile.title
        )

    async def begin(self, attempt: Attempt) -> str:
        """Where the person is sent."""
        return exchange.authorization_url(self.profile.authorize_url, self.profile, attempt)

    async def finish(self, attempt: Attempt, arguments: Mapping[str, str]) -> Verified:
        """Who came back; raises :class:`LoginRefusedError`."""
        code = exchange.code_of(arguments, self.profile.title)
        answer = await self._tokens.exchange(self.profile.token_url, attempt, code)
        headers = {"Authorization": f"Bearer {answer['access_token']}", "Accept": "application/json"}
        url = self.profile.userinfo_url
        claims = await self._fetcher.document("GET", url, headers=headers)
        if self.profile.emails:
            _, listed = await self._fetcher.any("GET", f"{url}/emails", headers=headers)
            address = primary_address(listed)
            claims = {**claims, "email": address, "email_verified": bool(address)}
        return person(self.profile, claims, Session())

    async def refresh(self, session: Session, subject: str) -> Verified | None:
        """Nothing to ask again."""
        return None

    async def logout_url(self, session: Session, back: str) -> str:
        """Nowhere: OAuth 2 has no logout."""
        return ""
