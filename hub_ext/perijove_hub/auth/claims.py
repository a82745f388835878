"""From what a provider says to a person: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perijove_hub.auth.arrivals import Session, Verified
from perijove_hub.auth.presets import Profile
from perijove_hub.auth.refusals import ForgedAnswerError, LoginRefusedError, UnverifiedEmailError

LONGEST = 255
MOST_GROUPS = 1000


def lacks(profile: Profile, claims: Mapping[str, Any]) -> bool:
    """Whether the provider's userinfo has to be asked besides."""
    wanted = [profile.username, profile.settings.groups_claim]
    if profile.issuer and "email" in profile.scopes:
        wanted.append(profile.email)
    if profile.issuer and (profile.username == profile.email or profile.settings.email_domains):
        # Some say only there whether the address that identifies was checked.
        wanted.append(profile.settings.email_verified_claim)
    return any(found(claims, name) is None for name in wanted if name)


def completed(profile: Profile, claims: Mapping[str, Any], userinfo: Mapping[str, Any]) -> dict[str, Any]:
    """What an ID token and userinfo say together; of both, the token counts.

    An address and whether it was checked are of one of them: the other may mean another address.
    """
    pair = (profile.email, profile.settings.email_verified_claim)
    if all(found(claims, name) is not None for name in pair):
        return {**userinfo, **claims}
    partial = claims if found(userinfo, profile.email) is not None else userinfo
    heads = {name if name in partial else name.partition(".")[0] for name in pair}
    kept = {name: value for name, value in partial.items() if name not in heads}
    return {**userinfo, **kept} if partial is claims else {**kept, **claims}


def person(profile: Profile, claims: Mapping[str, Any], session: Session) -> Verified:
    """Who these claims mean.

    Raises :class:`ForgedAnswerError` when they name nobody, :class:`UnverifiedEmailError` when the address
    that would identify was not checked, :class:`LoginRefusedError` for addresses of other domains.
    """
    subject, email = _word(found(claims, profile.subject)), _word(found(claims, profile.email))
    username = _word(found(claims, profile.username))
    if found(claims, profile.username) is None and _may_be_unsaid(profile):
        username = email.partition("@")[0] or subject
    if not subject or not username:
        raise ForgedAnswerError(
            f"the provider did not say {profile.username if subject else profile.subject}"
        )
    verified = bool(email) and is_true(found(claims, profile.settings.email_verified_claim))
    if profile.username == profile.email and not verified:
        raise UnverifiedEmailError(profile.title)
    _check_domain(profile, email, verified=verified)
    return Verified(
        provider=profile.name,
        subject=subject,
        username=username,
        email=email,
        email_verified=verified,
        full_name=_word(claims.get("name")),
        groups=_groups(found(claims, profile.settings.groups_claim)),
        session=session,
    )


def _may_be_unsaid(profile: Profile) -> bool:
    """Whether the name is a label only; its claim is optional (OpenID Connect Core 1.0, section 5.1)."""
    named = profile.settings.username_claim or profile.settings.accounts
    return profile.username == "preferred_username" and not named


def found(claims: Mapping[str, Any], name: str) -> Any:
    """The claim `name`; ``a.b`` is also ``b`` within ``a``. None when there is none."""
    if not name:
        return None
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def is_true(value: Any) -> bool:
    """Some providers write truth as text."""
    return value is True or value == "true"


def primary_address(listed: Any) -> str:
    """The verified primary address of GitHub's list of addresses, empty when there is none."""
    if not isinstance(listed, list):
        return ""
    for one in listed:
        if isinstance(one, dict) and one.get("primary") is True and one.get("verified") is True:
            return _word(one.get("email"))
    return ""


def _check_domain(profile: Profile, email: str, *, verified: bool) -> None:
    domains = {domain.lower() for domain in profile.settings.email_domains}
    if not domains:
        return
    if not verified:
        raise UnverifiedEmailError(profile.title)
    who, _, domain = email.rpartition("@")
    if not who or domain.lower() not in domains:
        raise LoginRefusedError(
            "an address of another domain",
            f"Only addresses of {', '.join(sorted(domains))} may log in here. Log in at {profile.title} with"
            " such an address, or ask the administrators of this site.",
        )


def _word(value: Any) -> str:
    """Text of a claim; numbers are names too (GitHub's ``id``). Empty for what is none, or unreasonable."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    text = str(value).strip()
    return text if len(text) <= LONGEST and text.isprintable() else ""


def _groups(value: Any) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [value]
    words = dict.fromkeys(_word(one) for one in listed[:MOST_GROUPS])
    return tuple(word for word in words if word)
