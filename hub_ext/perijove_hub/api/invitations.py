"""Invitations: somebody is asked to come as a guest, by a link that works once."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from perijove.model import FieldError, ForbiddenError, InvalidSpecError, Invitation, NotFoundError
from perijove.model.values import MAX_ID, Line
from perijove_hub.api.arrivals import users_of
from perijove_hub.api.audit import record
from perijove_hub.api.bodies import json_body, read_model
from perijove_hub.api.finding import Who, controller_of, public_url
from perijove_hub.api.users import Moment, TermsBody, checked
from perijove_hub.identity import Caller

router = APIRouter()
USUAL = 14 * 86400.0
"""Seconds for which an invitation can be used, unless said otherwise."""


class NewInvitation(TermsBody):
    """Whom to invite, and to what; ``expires`` is when the guest's account ends."""

    email: Line = ""
    """Only who logs in with this address, verified, comes in, and at once; else they wait to be activated."""
    until: Moment = None
    """When the invitation can be used no more; by default after 14 days."""


@router.get("/invitations")
async def invitations(request: Request, caller: Who) -> list[Invitation]:
    """Those of the caller's projects, or all for administrators; the oldest first."""
    found = [one for one in users_of(request).invitations.values() if _sees(caller, one)]
    return sorted(found, key=lambda one: one.id)


def _sees(caller: Caller, one: Invitation) -> bool:
    return caller.admin or (one.project is not None and one.project in caller.leads)


@router.post("/invitations", status_code=201, openapi_extra=json_body(NewInvitation))
async def invite(request: Request, caller: Who) -> Invitation:
    """Invite somebody; the answer alone has the link. For administrators, and leads to their projects."""
    body = await read_model(request, NewInvitation)
    if not caller.admin and (body.project is None or body.project not in caller.leads):
        raise ForbiddenError("only an administrator, or a lead of the project, may invite guests")
    checked(request, caller, body)
    now = controller_of(request).clock()
    until = now + USUAL if body.until is None else body.until
    if until <= now:
        raise InvalidSpecError(errors=[FieldError("until", f"{until:.0f}", "must be later than now")])
    new = Invitation(
        id=0,
        project=body.project,
        email=body.email.strip(),
        budget=body.budget,
        guest_until=body.expires,
        by=caller.name,
        created=now,
        expires=until,
    )
    said = {"project": body.project, "email": body.email, "expires": until}
    await record(
        request, caller, "invite", f"guest {body.email or 'with a link'}", after=said, project=body.project
    )
    made = await users_of(request).invite(new)
    hub = public_url(request).removesuffix(request.app.state.settings.prefix)
    return made.model_copy(update={"link": f"{hub}/hub/invitation?code={made.code}"})


@router.delete("/invitations/{number}", status_code=204)
async def withdraw(request: Request, caller: Who, number: int) -> Response:
    """Let an invitation open nothing any more. For administrators, and leads of its project."""
    found = users_of(request).invitation(number) if 0 <= number <= MAX_ID else None
    if found is None or not _sees(caller, found):
        raise NotFoundError(f"there is no invitation {number}")
    await record(request, caller, "withdraw", f"invitation {number}", project=found.project)
    await users_of(request).withdraw(number)
    return Response(status_code=204)
