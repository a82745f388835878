"""Errors as problem documents (RFC 9457); nothing that is not meant for the caller leaves the service."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from perijove.model import (
    InvalidSpecError,
    NotFoundError,
    OperatorError,
    PerijoveError,
    UnavailableError,
    UserError,
)
from perijove.model.validation import errors_of
from perijove_hub.headers import DATA

log = logging.getLogger(__name__)


def install(app: FastAPI, methods_of: Callable[[str], list[str]]) -> None:
    """Make `app` answer every error as a problem document.

    `methods_of` says what may be done with what is at a path; none for a path that is not its to say.
    """

    async def perijove(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, PerijoveError)
        return _answer(error)

    async def invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = errors_of([{**one, "loc": one["loc"][1:]} for one in error.errors()])
        return _answer(InvalidSpecError(errors=found))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == 405 and (methods := methods_of(request.url.path)):
            # The framework knows those of one route only (RFC 9110, section 15.5.6).
            headers["Allow"] = ", ".join(methods)
        known: PerijoveError = (
            NotFoundError("there is nothing here") if error.status_code == 404 else UserError(error.detail)
        )
        return _answer(known, status=error.status_code, headers=headers)

    async def system(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return _answer(UnavailableError("the disk of the service is full; ask its administrator"))
        return await unforeseen(request, error)

    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return _answer(OperatorError("the service failed at this request; its log says why"))

    app.add_exception_handler(PerijoveError, perijove)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(OSError, system)
    app.add_exception_handler(Exception, unforeseen)


def _answer(
    error: PerijoveError, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body: dict[str, Any] = error.problem()
    if status is not None:
        body["status"] = status
    # Of what nobody foresaw the answer is made outside of all middleware.
    told = {**DATA, **(headers or {}), **({"WWW-Authenticate": "Bearer"} if error.status == 401 else {})}
    return JSONResponse(body, status or error.status, told, media_type="application/problem+json")
