"""What is known of people: users and guests, invitations, tokens, keys, names of secrets, what was done."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from perijove.model.records import Record
from perijove.model.values import LINE, Line

Amount = Annotated[float | None, Field(ge=0, le=1e12, allow_inf_nan=False)]


class UserKind(StrEnum):
    """On whose account somebody works."""

    MEMBER = "member"
    GUEST = "guest"


class UserState(StrEnum):
    """Whether somebody may log in and have jobs."""

    WAITING = "waiting"  # logged in once, and not activated yet
    ACTIVE = "active"
    DISABLED = "disabled"
    EXPIRED = "expired"
    REMOVED = "removed"  # the record stays: the name and the uid are never given again


class LinkedIdentity(Record):
    """A login of a provider that means this user."""

    provider: Annotated[str, Field(max_length=64, pattern=LINE)]
    subject: Line
    """What the provider calls them, and never another (OpenID Connect Core 1.0, section 2, ``sub``)."""
    email: Line = ""


class Budget(Record):
    """What a guest may use in all. None: as the policy has it."""

    cpu_minutes: Amount = None
    gpu_minutes: Amount = None
    disk: Annotated[int | None, Field(ge=0, le=2**62)] = None
    """Bytes of the home."""


class User(Record):
    """A user of the site, as they and administrators see them."""

    name: str
    kind: UserKind = UserKind.MEMBER
    state: UserState = UserState.ACTIVE
    number: int | None = None
    """In the site's range of uids, of those without a system account (pCluster's ``owner``)."""
    account: str | None = None
    """The system account that the jobs of a guest run under; None: their own."""
    home: str | None = None
    """Where the home lies on the nodes; None: where the account's is."""
    email: str = ""
    full_name: str = ""
    project: str | None = None
    """That a guest was invited to."""
    sponsor: str | None = None
    """Who invited or activated them."""
    budget: Budget = Budget()
    created: float
    activated: float | None = None
    expires: float | None = None
    """Seconds since the epoch."""
    last_login: float | None = None
    valid_from: float = 0.0
    """Tokens and sessions from before this moment are of no use."""
    disk_used: int | None = None
    """Bytes of the home, when it was last measured."""
    identities: list[LinkedIdentity] = Field(default_factory=list)


class Invitation(Record):
    """Somebody is asked to come as a guest; the link holds a code that is told once."""

    id: int
    project: str | None
    email: str = ""
    """Only who logs in with this verified address may use it; anybody with the link when empty."""
    budget: Budget = Budget()
    guest_until: float | None = None
    """When the guest's account will expire."""
    by: str
    created: float
    expires: float
    used_by: str | None = None
    code: str | None = None
    """Only in the answer that made it."""
    link: str | None = None
    """Likewise: to be sent to the guest."""


class Scope(StrEnum):
    """What a token may be used for; each includes those before it."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"


class Token(Record):
    """An API token of one device. The secret itself is told once and kept only as a hash."""

    id: int
    owner: str
    name: str
    """Of the device, for people."""
    scope: Scope = Scope.SUBMIT
    created: float
    expires: float
    last_used: float | None = None
    last_address: str = ""
    token: str | None = None
    """Only in the answer that made it."""


class SshKey(Record):
    """A public key (``authorized_keys``, sshd(8)) that opens one's own interactive sessions."""

    fingerprint: str
    """``SHA256:...`` as ssh-keygen(1) prints it."""
    kind: str
    comment: str
    added: float


class SecretName(Record):
    """That there is a secret; what it is, is told to jobs only."""

    name: str
    project: str | None = None
    """Whose members' jobs may have it; None: its owner's alone."""
    purpose: Literal["job", "registry"] = "job"
    """``registry``: the password for the image registry of that name."""
    by: str
    changed: float


class AuditEntry(Record):
    """One act of somebody on what is not theirs alone."""

    seq: int
    at: float
    by: str
    act: str
    subject: str
    before: Any = None
    after: Any = None
    address: str = ""
    """Where the request came from."""
    token: str = ""
    """With which token or session."""
    project: str | None = None
    """Whose leads may read it."""


class Announcement(Record):
    """What administrators tell everybody."""

    id: int
    text: str
    level: Literal["info", "warning"] = "info"
    by: str
    begins: float
    ends: float | None = None
    public: bool = False
    """Also for who is not logged in."""
