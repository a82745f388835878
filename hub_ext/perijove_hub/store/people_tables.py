"""The tables of people: users, their logins, tokens, keys and secrets, invitations, and the audit log."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, LargeBinary, Text
from sqlmodel import Field, SQLModel


class PersonRow(SQLModel, table=True):
    """A user; never deleted, so that neither name nor number is given again."""

    __tablename__ = "person"
    __table_args__ = (Index("ix_person_number", "number", unique=True),)

    name: str = Field(primary_key=True)
    kind: str
    state: str
    number: int | None = None
    expires: float | None = None
    valid_from: float = 0.0
    detail: Any = Field(sa_column=Column(JSON, nullable=False))
    """The remaining fields of :class:`perijove.model.people.User`, without its identities."""


class IdentityRow(SQLModel, table=True):
    """A login of a provider, and whom it means."""

    __tablename__ = "identity"
    __table_args__ = (Index("ix_identity_person", "person"),)

    provider: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    person: str
    email: str
    at: float


class InvitationRow(SQLModel, table=True):
    """An invitation; of its code only the SHA-256."""

    __tablename__ = "invitation"
    __table_args__ = (Index("ix_invitation_hash", "hash", unique=True),)

    id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    hash: str
    expires: float
    used_by: str | None = None
    detail: Any = Field(sa_column=Column(JSON, nullable=False))


class TokenRow(SQLModel, table=True):
    """An API token; of it only the SHA-256, which for 256 random bits needs no salt."""

    __tablename__ = "token"
    __table_args__ = (Index("ix_token_hash", "hash", unique=True), Index("ix_token_owner", "owner"))

    id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    hash: str
    owner: str
    name: str
    scope: str
    created: float
    expires: float
    last_used: float | None = None
    last_address: str = ""


class SshKeyRow(SQLModel, table=True):
    """A user's public key."""

    __tablename__ = "ssh_key"

    owner: str = Field(primary_key=True)
    fingerprint: str = Field(primary_key=True)
    line: str = Field(sa_column=Column(Text, nullable=False))
    """As in ``authorized_keys``."""
    at: float


class SecretRow(SQLModel, table=True):
    """A secret of a user or a project, encrypted; the key is not in the database."""

    __tablename__ = "secret"

    holder: str = Field(primary_key=True)
    """``user:NAME``, ``project:NAME`` or ``site``."""
    purpose: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    by: str
    at: float


class AuditRow(SQLModel, table=True):
    """One act; triggers keep what is written from being changed or removed."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("ix_audit_subject", "subject"),
        Index("ix_audit_by", "by"),
        Index("ix_audit_project", "project"),
    )

    seq: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    at: float
    by: str
    act: str
    subject: str
    address: str
    token: str
    project: str | None = None
    """Whose leads may read it."""
    before: Any = Field(sa_column=Column(JSON))
    after: Any = Field(sa_column=Column(JSON))


class JoinRow(SQLModel, table=True):
    """A token with which one node may join, once; of it only the SHA-256."""

    __tablename__ = "join_token"

    hash: str = Field(primary_key=True)
    node: str
    by: str
    created: float
    expires: float
    used: float | None = None


person = SQLModel.metadata.tables["person"]
identity = SQLModel.metadata.tables["identity"]
invitation = SQLModel.metadata.tables["invitation"]
token = SQLModel.metadata.tables["token"]
ssh_key = SQLModel.metadata.tables["ssh_key"]
secret = SQLModel.metadata.tables["secret"]
audit = SQLModel.metadata.tables["audit"]
join_token = SQLModel.metadata.tables["join_token"]
