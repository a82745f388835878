"""``/announcements``: what administrators tell everybody."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from perijove.model import Announcement
from perijove_hub.announcing import Announcements
from perijove_hub.api.arrivals import users_of
from perijove_hub.api.audit import record
from perijove_hub.api.bodies import json_body, read_model
from perijove_hub.api.finding import Who, controller_of
from perijove_hub.identity import Caller
from perijove_hub.users.notices import notices

router = APIRouter()
public = APIRouter()
LONGEST = 500
"""Characters of an announcement."""


def _legible(text: str) -> str:
    text = " ".join(text.split())
    if not text or not text.isprintable():
        raise ValueError("must be a line of text without control characters")
    return text


Moment = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]


class NewAnnouncement(BaseModel):
    """What to tell, and when; seconds since the epoch."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(max_length=LONGEST), AfterValidator(_legible)]
    level: Literal["info", "warning"] = "info"
    begins: Moment | None = None
    """Now, when not given."""
    ends: Moment | None = None
    """When it is removed, when not given."""
    public: bool = False
    """Also for who is not logged in: it stands on the login page."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.begins is not None and self.ends is not None and self.ends <= self.begins:
            raise ValueError("an announcement must end after it begins")
        return self


def announcements_of(request: Request) -> Announcements:
    """The application's announcements."""
    found: Announcements = request.app.state.announcements
    return found


@router.get("/announcements")
async def announcements(request: Request, caller: Who, coming: bool = False) -> list[Announcement]:
    """Those that hold now, warnings first. `coming`: also those that will; for administrators.

    Those with an ID below 0 are for the caller alone: guests who wait, what is nearly used up.
    """
    if coming:
        caller.must_administer("see what is not announced yet")
        return announcements_of(request).known(controller_of(request).clock())
    return told(request, caller)


def told(request: Request, caller: Caller) -> list[Announcement]:
    """What `caller` reads now: what is for them alone, and what all are told."""
    controller = controller_of(request)
    now, standing = controller.clock(), controller.board.standing
    own = notices(users_of(request), standing, caller.name, now, admin=caller.admin, leads=caller.leads)
    return [*own, *announcements_of(request).at(now)]


class PublicAnnouncement(BaseModel):
    """What anybody may read."""

    id: int
    text: str
    level: Literal["info", "warning"]


@public.get("/announcements/public")
async def public_announcements(request: Request) -> list[PublicAnnouncement]:
    """Those that hold now and are for everybody; no token needed."""
    held = announcements_of(request).at(controller_of(request).clock())
    return [PublicAnnouncement(id=one.id, text=one.text, level=one.level) for one in held if one.public]


@router.post("/announcements", status_code=201, openapi_extra=json_body(NewAnnouncement))
async def announce(request: Request, caller: Who) -> Announcement:
    """Tell everybody something. For administrators."""
    caller.must_administer("announce")
    wanted = await read_model(request, NewAnnouncement)
    now = controller_of(request).clock()
    begins = now if wanted.begins is None else wanted.begins
    said = wanted.model_dump(exclude={"begins"})
    new = Announcement(id=0, by=caller.name, begins=begins, **said)
    await record(request, caller, "announce", "site", None, new.model_dump(exclude={"id", "by"}))
    return await announcements_of(request).add(new, now)


@router.delete("/announcements/{number}", status_code=204)
async def withdraw(request: Request, caller: Who, number: int) -> Response:
    """Tell it no more. For administrators."""
    caller.must_administer("remove announcements")
    known = announcements_of(request)
    gone = known.get(number)
    await record(request, caller, "withdraw", f"announcement {number}", gone.model_dump())
    await known.remove(number, caller.name, controller_of(request).clock())
    return Response(status_code=204)
