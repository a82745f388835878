"""What an operator sets about people: the range of uids, guests, and how administrators are told."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from perijove.model import parse_duration, parse_size

SYSTEM_NAME = r"^[a-z_][a-z0-9_-]{0,31}$"
"""What system accounts are called (useradd(8))."""
SystemName = Annotated[str, Field(pattern=SYSTEM_NAME)]
MOST = 9999
"""The highest number of a user without a system account; the lowest is 1."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UidRange(_Part):
    """The uids of users without a system account: number 42 is uid ``first`` + 42, called ``user20042``."""

    first: Annotated[int, Field(ge=1000, le=2**31)] = 20_000
    last: Annotated[int, Field(ge=1000, le=2**31)] = 29_999
    """Highest uid that is given; at most 9999 above ``first``, whose own uid is nobody's."""
    prefix: Annotated[str, Field(pattern=r"^[a-z_][a-z_-]{0,19}$")] = "user"
    """Of the names: followed by the uid."""
    homes: str | None = None
    """Folder on the nodes with the homes of members without a system account; by default ``DIR/homes``."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.first < self.last <= self.first + MOST:
            raise ValueError(f"last: must be above first ({self.first}) by at most {MOST}")
        return self

    @field_validator("homes")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        return _folder(value)


class GuestSettings(_Part):
    """On which accounts guests work, and within which bounds."""

    account: SystemName | None = None
    """One system account for all guests; their jobs then run in containers only."""
    pool: list[SystemName] = []
    """System accounts, one for each guest."""
    own: bool = True
    """Where neither is given: each guest has a uid of the range of ``uids``."""
    homes: str | None = None
    """Folder on the nodes with the guests' homes; by default ``DIR/homes``."""
    disk: int | None = None
    """Bytes of a guest's home, unless said otherwise for one; no cap by default."""
    network: list[Literal["none", "user", "project", "bridge"]] = []
    """Networks for their jobs. Jobs that name none get the first, notebook servers the first that is one.
    By default what the site allows, never ``host``."""
    launchers: list[str] = []
    """Launchers for their jobs; by default all."""
    expires: float | None = None
    """How long after their activation guests are, unless said otherwise for one; seconds."""
    on_disable: Literal["stop", "drain"] = "stop"
    """What becomes of the jobs of a guest who is disabled or has expired: ``stop`` ends all; ``drain`` lets
    those go on that run, but for notebook servers, and holds those that wait."""
    on_budget: Literal["stop", "run"] = "stop"
    """What becomes of the jobs that run when a guest's CPU or GPU minutes are used up: ``stop`` ends them;
    ``run`` lets them go on to their time limit."""
    budget_notice: float = 60.0
    """Seconds between the stop signal and the kill of jobs that are ended so."""

    @field_validator("disk", mode="before")
    @classmethod
    def _size(cls, value: Any) -> int | None:
        return None if value is None else parse_size(value)

    @field_validator("expires", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> float | None:
        return None if value is None else parse_duration(value)

    @field_validator("budget_notice", mode="before")
    @classmethod
    def _notice(cls, value: Any) -> float:
        return parse_duration(value)

    @field_validator("homes")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        return _folder(value)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.account is not None and self.pool:
            raise ValueError("account and pool: only one of the two can be given")
        if self.account is None and not self.pool and not self.own:
            raise ValueError("own: with false there must be an account or a pool")
        return self

    @property
    def shared(self) -> bool:
        """Whether all guests have one uid."""
        return self.account is not None


class MailSettings(_Part):
    """By which server administrators and leads are told of people who wait (SMTP, RFC 5321)."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 25
    sender: str
    """The address that messages come from."""
    to: list[str] = []
    """Addresses of administrators."""
    tls: Literal["none", "starttls", "tls"] = "none"
    username: str | None = None
    password_file: str | None = None
    """File with the password, readable by the service alone."""


def _folder(value: str | None) -> str | None:
    if value is not None and (not value.startswith("/") or ".." in value.split("/")):
        raise ValueError("must be an absolute path without ..")
    return value
