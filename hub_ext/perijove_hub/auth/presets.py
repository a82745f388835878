"""Providers that many sites use: where they are, and how they say who somebody is."""

from __future__ import annotations

from dataclasses import dataclass

from perijove_hub.auth.configuration import PresetName, ProviderSettings


@dataclass(frozen=True, slots=True)
class Preset:
    """What is known of a provider beforehand."""

    scopes: tuple[str, ...]
    username: str
    subject: str = "sub"
    email: str = "email"
    title: str = ""
    issuer: str = ""
    """Of OpenID providers; the others have the three addresses."""
    authorize_url: str = ""
    token_url: str = ""
    userinfo_url: str = ""
    emails: bool = False
    """Whether verified addresses are listed at ``userinfo_url`` + ``/emails`` (GitHub's REST API)."""


_PROFILE = ("openid", "profile", "email")

PRESETS: dict[PresetName, Preset] = {
    "oidc": Preset(_PROFILE, "preferred_username"),
    "google": Preset(_PROFILE, "email", title="Google", issuer="https://accounts.google.com"),
    "gitlab": Preset(_PROFILE, "preferred_username", title="GitLab", issuer="https://gitlab.com"),
    # ORCID tells no address; its number is what people are known by.
    "orcid": Preset(("openid",), "sub", title="ORCID", issuer="https://orcid.org"),
    "github": Preset(
        ("read:user", "user:email"),
        "login",
        "id",
        title="GitHub",
        authorize_url="https://github.com/login/oauth/authorize",
        token_url="https://github.com/login/oauth/access_token",  # noqa: S106 - an address
        userinfo_url="https://api.github.com/user",
        emails=True,
    ),
    "generic": Preset((), "", ""),
}


@dataclass(frozen=True, slots=True)
class Profile:
    """A provider's settings with what its preset knows filled in."""

    name: str
    title: str
    settings: ProviderSettings
    issuer: str
    authorize_url: str
    token_url: str
    userinfo_url: str
    scopes: tuple[str, ...]
    username: str
    subject: str
    email: str
    emails: bool


def profile_of(name: str, settings: ProviderSettings) -> Profile:
    """What is in force for the provider `name`."""
    preset = PRESETS[settings.preset]
    return Profile(
        name=name,
        title=settings.title or preset.title or name,
        settings=settings,
        issuer=settings.issuer or preset.issuer,
        authorize_url=settings.authorize_url or preset.authorize_url,
        token_url=settings.token_url or preset.token_url,
        userinfo_url=settings.userinfo_url or preset.userinfo_url,
        scopes=preset.scopes if settings.scopes is None else tuple(settings.scopes),
        username=settings.username_claim or preset.username,
        subject=settings.subject_claim or preset.subject,
        email=settings.email_claim or preset.email,
        emails=preset.emails,
    )
