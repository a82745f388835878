"""``/device``: logins of devices (RFC 8628), and tokens given back by whoever holds them (RFC 7009)."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, TypeAdapter, ValidationError

from perijove.model import Scope, UserError
from perijove.model.values import Title
from perijove_hub.api.audit import address_of, record
from perijove_hub.api.bodies import read_body
from perijove_hub.api.finding import public_url
from perijove_hub.api.tokens import tokens_of
from perijove_hub.tokens.device import GRANT, LIFE, DeviceLogins, DeviceRefusal

router = APIRouter()
FORM_BYTES = 4096


def _form(*fields: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in fields}}
    return {"requestBody": {"content": {"application/x-www-form-urlencoded": {"schema": schema}}}}


_TITLE: TypeAdapter[str] = TypeAdapter(Title)


class DeviceAuthorization(BaseModel):
    """RFC 8628, section 3.2."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


class Granted(BaseModel):
    """RFC 6749, section 5.1."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the name of a scheme
    expires_in: int
    scope: Scope
    name: str
    """The user whose token it is."""


class Refused(BaseModel):
    """RFC 6749, section 5.2; RFC 8628, section 3.5."""

    error: str
    error_description: str


def devices_of(request: Request) -> DeviceLogins:
    """The devices that wait."""
    devices: DeviceLogins = request.app.state.devices
    return devices


@router.post(
    "/device/authorization",
    openapi_extra=_form("scope", "device_name"),
    response_model=DeviceAuthorization,
    responses={400: {"model": Refused}},
)
async def authorization(request: Request) -> JSONResponse:
    """A device asks to be let in: form fields ``scope`` and ``device_name``. No token needed.

    Show the code and the address to somebody with a browser, and ask ``/device/token``.
    """
    fields = await _fields(request)
    try:
        scope = Scope(fields.get("scope") or Scope.SUBMIT)
    except ValueError:
        return _refused(DeviceRefusal("invalid_scope", f"scope: must be one of {', '.join(Scope)}"))
    try:
        name = _TITLE.validate_python(fields.get("device_name", ""))[:100] or "a device without a name"
    except ValidationError:
        return _refused(
            DeviceRefusal("invalid_request", "device_name: must be a line of at most 100 letters")
        )
    device_code, login = devices_of(request).begin(name, scope, address_of(request))
    page = f"{public_url(request)}/device"
    answer = DeviceAuthorization(
        device_code=device_code,
        user_code=login.code,
        verification_uri=page,
        verification_uri_complete=f"{page}?code={login.code}",
        expires_in=int(LIFE),
        interval=int(login.interval),
    )
    return JSONResponse(answer.model_dump(), headers={"Cache-Control": "no-store"})


@router.post(
    "/device/token",
    openapi_extra=_form("grant_type", "device_code"),
    response_model=Granted,
    responses={400: {"model": Refused}},
)
async def token(request: Request) -> JSONResponse:
    """The token of a device that was let in: form fields ``grant_type`` and ``device_code``.

    Else 400 with ``error``: ``authorization_pending``, ``slow_down``, ``access_denied`` or ``expired_token``.
    """
    fields, devices = await _fields(request), devices_of(request)
    if fields.get("grant_type") != GRANT:
        return _refused(DeviceRefusal("unsupported_grant_type", f"grant_type: must be {GRANT}"))
    device_code = fields.get("device_code", "")
    try:
        login = devices.poll(device_code)
    except DeviceRefusal as refusal:
        return _refused(refusal)
    assert login.owner is not None
    try:
        made = await tokens_of(request).make(login.owner, login.name, login.scope)
    except BaseException:
        devices.restore(device_code, login)
        raise
    assert made.token is not None
    answer = Granted(
        access_token=made.token,
        expires_in=int(made.expires - made.created),
        scope=made.scope,
        name=made.owner,
    )
    told = {"token": made.id, "device": made.name, "scope": made.scope}
    await record(request, made.owner, "login", f"user {made.owner}", after=told)
    return JSONResponse(answer.model_dump(), headers={"Cache-Control": "no-store"})


@router.post("/device/revocation", openapi_extra=_form("token"))
async def revocation(request: Request) -> dict[str, bool]:
    """Give a token back, as who has it may, whatever its scope: form field ``token``."""
    given = (await _fields(request)).get("token", "")
    if (found := tokens_of(request).find(given)) is not None:
        await tokens_of(request).revoke(found.id)
    return {"revoked": found is not None}


async def _fields(request: Request) -> dict[str, str]:
    body = await read_body(request, FORM_BYTES)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise UserError("what was sent is no form") from None


def _refused(refusal: DeviceRefusal) -> JSONResponse:
    body = {"error": refusal.code, "error_description": str(refusal)}
    return JSONResponse(body, 400, headers={"Cache-Control": "no-store"})
