"""Errors are for someone: the user can mend it, the operator must, or the network will.

The class docstring is the default message. On the wire an error is a problem document
(RFC 9457, ``application/problem+json``) whose ``code`` is one of :class:`ErrorCode`; the client
turns it back into the same class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from inspect import getdoc
from typing import Any, ClassVar


class ErrorCode(StrEnum):
    """Stable names of the errors a client may branch on."""

    INVALID_SPEC = "invalid-spec"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    TOO_LARGE = "too-large"
    USER = "user"
    OPERATOR = "operator"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with a request: which field, what was given, what would be accepted.

    `field` is empty when the request as a whole is meant, `value` where it says nothing or may be secret.
    """

    field: str
    value: str
    message: str

    def __str__(self) -> str:
        given = f" (given: {self.value})" if self.value else ""
        return f"{self.field}: {self.message}{given}" if self.field else self.message


class PerijoveError(Exception):
    """Something went wrong in Perijove."""

    code: ClassVar[ErrorCode]
    status: ClassVar[int]
    """The HTTP status that carries this error."""

    def __init__(self, message: str | None = None, *, errors: Sequence[FieldError] = ()) -> None:
        self.errors = tuple(errors)
        text = message or "; ".join(str(error) for error in self.errors) or getdoc(type(self)) or ""
        super().__init__(text)

    def problem(self) -> dict[str, Any]:
        """The problem document (RFC 9457) of this error."""
        return {
            "type": "about:blank",
            "title": (getdoc(type(self)) or "").splitlines()[0],
            "status": self.status,
            "code": self.code.value,
            "detail": str(self),
            "errors": [asdict(error) for error in self.errors],
        }

    @staticmethod
    def from_problem(problem: dict[str, Any]) -> PerijoveError:
        """The error that a problem document describes; unknown codes become :class:`OperatorError`."""
        listed = problem.get("errors")
        errors = [
            FieldError(str(e.get("field", "")), str(e.get("value", "")), str(e.get("message", "")))
            for e in (listed if isinstance(listed, list) else [])
            if isinstance(e, dict)
        ]
        cls = _BY_CODE.get(str(problem.get("code")), OperatorError)
        detail = problem.get("detail") or problem.get("title")
        return cls(str(detail) if detail else None, errors=errors)


class UserError(PerijoveError):
    """The request cannot be carried out as it stands."""

    code = ErrorCode.USER
    status = 400


class InvalidSpecError(UserError):
    """The job's specification is not acceptable."""

    code = ErrorCode.INVALID_SPEC
    status = 422


class UnauthorizedError(UserError):
    """Who you are is not known: log in, or give a token that is valid."""

    code = ErrorCode.UNAUTHORIZED
    status = 401


class ForbiddenError(UserError):
    """You may not do this."""

    code = ErrorCode.FORBIDDEN
    status = 403


class NotFoundError(UserError):
    """There is no such thing, or it is not yours to see."""

    code = ErrorCode.NOT_FOUND
    status = 404


class ConflictError(UserError):
    """The job's state does not allow this."""

    code = ErrorCode.CONFLICT
    status = 409


class TooLargeError(UserError):
    """The request is larger than this service accepts."""

    code = ErrorCode.TOO_LARGE
    status = 413


class OperatorError(PerijoveError):
    """The site's installation is at fault; its operator must act."""

    code = ErrorCode.OPERATOR
    status = 500


class UnavailableError(PerijoveError):
    """Something that is needed did not answer; trying again later can help."""

    code = ErrorCode.UNAVAILABLE
    status = 503


_BY_CODE: dict[str, type[PerijoveError]] = {
    cls.code.value: cls
    for cls in (
        UserError,
        InvalidSpecError,
        UnauthorizedError,
        ForbiddenError,
        NotFoundError,
        ConflictError,
        TooLargeError,
        OperatorError,
        UnavailableError,
    )
}
