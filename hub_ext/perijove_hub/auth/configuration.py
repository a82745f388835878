"""``login:`` of ``DIR/perijove.yaml``: the ways in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from perijove.model import OperatorError, parse_duration

LOCAL = "local"
"""The provider's name in arrivals of the machine's own accounts."""

Newcomers = Literal["members", "guests", "closed"]
Taken = Literal["rename", "refuse"]
PresetName = Literal["oidc", "google", "gitlab", "github", "orcid", "generic"]

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_HOST = re.compile(r"(?=.{1,180}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z][a-z0-9-]{0,61}[a-z0-9]")
"""Names of hosts (RFC 1123, 2.1), short enough for a user's before it; the last part is never a number."""
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProviderSettings(_Section):
    """Somebody else's login: OpenID Connect, or plain OAuth 2 with a preset or all three addresses."""

    preset: PresetName = "oidc"
    """``oidc`` (any OpenID provider), ``google``, ``gitlab``, ``orcid``, ``github``, ``generic`` OAuth 2."""
    title: str = ""
    """On the button; by default the preset's, else the section's name."""
    users: Newcomers = "guests"
    """What a first login makes of somebody: ``members``, or ``guests``, who wait to be activated;
    ``closed``: nobody new comes without an invitation."""
    accounts: bool = False
    """Its names are those of the site's system accounts: who is ``ada`` there is ``ada`` here."""
    taken: Taken = "rename"
    """What becomes of a newcomer whose name somebody else has here: ``rename`` (``ada-2``) or ``refuse``."""
    issuer: str = ""
    """The OpenID provider, exactly as it calls itself; its discovery document is read from there."""
    client_id: Annotated[str, Field(min_length=1)]
    """What the provider calls this hub."""
    client_secret: SecretStr | None = None
    """Meant for a variable (``PERIJOVE_LOGIN__PROVIDERS__NAME__CLIENT_SECRET``); in a file use
    ``client_secret_file``. None of both: a public client, which PKCE protects alone."""
    client_secret_file: Path | None = None
    """File with the secret, which no other account of the machine may read; relative to the state
    directory."""
    scopes: list[str] | None = None
    """By default the preset's."""
    username_claim: str = ""
    """Claim or field that the user's name is made of; by default the preset's."""
    email_claim: str = ""
    """Likewise of the address."""
    email_verified_claim: str = "email_verified"
    """Likewise of whether that address was checked."""
    subject_claim: str = ""
    """Likewise of what the provider never gives to another; ``sub`` for OpenID providers."""
    groups_claim: str = ""
    """Claim with the user's groups, a list; none by default."""
    email_domains: list[str] = []
    """Only who has a verified address in one of these domains gets in."""
    parameters: dict[str, str] = {}
    """More parameters of the authorization request, ``prompt: consent`` for example."""
    authorize_url: str = ""
    """Where people are sent, for providers that have no discovery document."""
    token_url: str = ""
    """Where the code is exchanged."""
    userinfo_url: str = ""
    """Where it says who they are."""
    ca_file: Path | None = None
    """Certificates that the provider's is checked against; by default the machine's."""
    logout: bool = True
    """Whether logging out here logs out at the provider too, where it offers that."""

    @field_validator("issuer", "authorize_url", "token_url", "userinfo_url")
    @classmethod
    def _https(cls, value: str) -> str:
        return must_be_https(value) if value else value

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if self.client_secret is not None and self.client_secret_file is not None:
            raise ValueError("give client_secret or client_secret_file, not both")
        return self

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.preset == "oidc" and not self.issuer:
            raise ValueError("an OpenID provider needs its issuer, for example https://login.example.org")
        if self.preset == "generic":
            wanted = ("authorize_url", "token_url", "userinfo_url", "subject_claim", "username_claim")
            if lacking := [name for name in wanted if not getattr(self, name)]:
                raise ValueError(f"preset generic needs {', '.join(lacking)} too")
        return self

    def secret(self, state: Path) -> str:
        """The client's secret, empty for a public client. Raises :class:`OperatorError`."""
        return _secret(self.client_secret, self.client_secret_file, state)


class LdapSettings(_Section):
    """A directory; people log in with their name and password there."""

    title: str = ""
    """On the login page; by default the section's name."""
    users: Newcomers = "members"
    """As of providers."""
    accounts: bool = True
    """As of providers."""
    taken: Taken = "rename"
    """As of providers."""
    servers: Annotated[list[str], Field(min_length=1)]
    """``ldaps://HOST`` or ``ldap://HOST`` (with StartTLS); the next is asked when one does not answer."""
    plaintext: bool = False
    """``ldap://`` without StartTLS, which sends passwords in the clear."""
    ca_file: Path | None = None
    """Certificates that the servers' are checked against; by default the machine's."""
    timeout: float = 5.0
    """How long each server has to answer."""
    user_dn: str = ""
    """The name of everybody's entry, ``uid={username},ou=people,dc=example,dc=org``; otherwise people are
    searched for."""
    bind_dn: str = ""
    """Who searches; anonymous when empty."""
    bind_password: SecretStr | None = None
    """Theirs, meant for a variable."""
    bind_password_file: Path | None = None
    """File with it, as ``client_secret_file``."""
    base: str = ""
    """Where people are searched for, ``ou=people,dc=example,dc=org``."""
    filter: str = "(uid={username})"
    """Who they are; the name is escaped (RFC 4515)."""
    username_attribute: str = "uid"
    """Attribute with the user's name."""
    email_attribute: str = "mail"
    """Attribute with the address."""
    email_verified: bool = False
    """Whether the addresses were checked: people cannot write their own there."""
    name_attribute: str = "cn"
    """Attribute with the full name."""
    groups_attribute: str = "memberOf"
    """Attribute of people with the names of their groups' entries."""
    group_base: str = ""
    """Where groups are searched for instead."""
    group_filter: str = "(member={dn})"
    """Which groups are somebody's; ``{dn}`` and ``{username}`` are replaced, escaped."""
    group_attribute: str = "cn"
    """Attribute with a group's name."""

    @field_validator("timeout", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> float | None:
        return parse_duration(value)

    @field_validator("servers")
    @classmethod
    def _urls(cls, value: list[str]) -> list[str]:
        for url in value:
            parts = urlsplit(url)
            if parts.scheme not in {"ldap", "ldaps"} or not parts.hostname or parts.path.strip("/"):
                raise ValueError(f"{url!r} is no server; ldaps://HOST or ldap://HOST would be")
        return value

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if bool(self.user_dn) == bool(self.base):
            raise ValueError("give user_dn (everybody's entry) or base (where to search), one of them")
        for name, text, word in (
            ("user_dn", self.user_dn or "{username}", "{username}"),
            ("filter", self.filter, "{username}"),
        ):
            if word not in text:
                raise ValueError(f"{name} {text!r} lacks {word}: everybody would be the same entry")
        if self.bind_password is not None and self.bind_password_file is not None:
            raise ValueError("give bind_password or bind_password_file, not both")
        if self.bind_dn and self.bind_password is None and self.bind_password_file is None:
            raise ValueError(f"bind_dn {self.bind_dn!r} needs bind_password_file")
        return self

    def secret(self, state: Path) -> str:
        """The password of ``bind_dn``. Raises :class:`OperatorError`."""
        return _secret(self.bind_password, self.bind_password_file, state)


class LoginSettings(_Section):
    """How people log in."""

    local: bool = True
    """Whether accounts of this machine may log in, the trial account among them."""
    url: str = ""
    """The hub as browsers see it, ``https://hub.example.org``; otherwise what a request says of itself."""
    subdomains: bool = False
    """Whether each user's notebook servers have a name below that of ``url``, ``ada.hub.example.org``, and so
    an origin of their own."""
    providers: dict[str, ProviderSettings] = {}
    """Other people's logins by a name of your choice, which stays."""
    ldap: dict[str, LdapSettings] = {}
    """Directories, likewise."""

    @field_validator("url")
    @classmethod
    def _no_path(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        more = parts.path.strip("/") or parts.query or parts.fragment or parts.username
        if parts.scheme not in {"http", "https"} or not parts.hostname or more or not _has_port(parts):
            raise ValueError(f"{value!r} is no address of a hub; https://hub.example.org would be")
        # Names of hosts are compared letter by letter by the proxy.
        return value.rstrip("/").lower()

    @model_validator(mode="after")
    def _name_of_the_hub(self) -> Self:
        host = urlsplit(self.url).hostname or ""
        if self.subdomains and not _HOST.fullmatch(host):
            given = f"; {host!r} has none" if host else ""
            raise ValueError(
                "subdomains need a url with a host's name, https://hub.example.org, which names of users can"
                f" stand before{given}"
            )
        return self

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in (*self.providers, *self.ldap):
            if not _NAME.fullmatch(name) or name == LOCAL:
                raise ValueError(
                    f"{name!r} is no name for a provider: small letters, digits and '-', at most 32, and not"
                    f" {LOCAL!r}"
                )
        if both := self.providers.keys() & self.ldap.keys():
            raise ValueError(f"{min(both)!r} is the name of a provider and of a directory; give one another")
        if not (self.local or self.providers or self.ldap):
            raise ValueError("nobody could log in: local is false, and there are no providers and no ldap")
        return self

    @property
    def apart(self) -> bool:
        """Whether cookies are bound to the hub's own name, which a page of a subdomain could set them for."""
        return self.subdomains and self.url.startswith("https://")

    def section(self, name: str) -> ProviderSettings | LdapSettings | None:
        """The provider or directory of that name."""
        return self.providers.get(name) or self.ldap.get(name)


def _has_port(parts: SplitResult) -> bool:
    """Whether it is a number in range, or there is none."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def must_be_https(url: str) -> str:
    """`url` when it is https, or http on this machine. Raises :class:`ValueError`."""
    parts = urlsplit(url)
    if not parts.hostname or parts.fragment or parts.username:
        raise ValueError(f"{url!r} is no address; https://login.example.org would be")
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return url
    raise ValueError(f"{url!r} must be https (http only on this machine itself)")


def _secret(given: SecretStr | None, file: Path | None, state: Path) -> str:
    if given is not None:
        return given.get_secret_value()
    if file is None:
        return ""
    path = state / file
    try:
        if path.stat().st_mode & 0o007:
            raise OperatorError(f"{path} holds a secret and others may read it; chmod o= {path}")
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"the secret in {path} cannot be read: {error}") from error
    if not text:
        raise OperatorError(f"{path} is empty; a secret was expected")
    return text
