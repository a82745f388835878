"""The OpenAPI document: what FastAPI reads off the routes, and which errors each of them may answer.

Errors are made in one place (:mod:`.problems`), whoever raised them; so they are declared in one place too,
by what an operation is: whether it wants a token, names something, changes something, reads a body.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel

from perijove.model import ErrorCode

PROBLEM: Final = "application/problem+json"
BYTES: Final = "application/octet-stream"


class WrongField(BaseModel):
    """One thing that is wrong with a request."""

    field: str
    value: str
    message: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    code: ErrorCode
    detail: str
    errors: list[WrongField]


ERRORS: Final = {
    400: "The request cannot be carried out as it stands",
    401: "Who asks is not known",
    403: "They may not do this",
    404: "There is no such thing, or it is not theirs to see",
    408: "No more of the body came",
    409: "The state of what is named does not allow this",
    413: "The request is larger than this service accepts",
    422: "A field is not acceptable",
    503: "The service stands by, or something that it needs did not answer",
}
"""By status, what an operation may answer beside what it is for."""


def sends(*types: str, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """For ``responses`` of a route: it answers bytes of one of these media types."""
    return {status: {"content": {one: {"schema": _schema(one)} for one in types}}}


def takes(media_type: str) -> dict[str, Any]:
    """For ``openapi_extra`` of a route: it reads a body of this media type."""
    return {"requestBody": {"required": True, "content": {media_type: {"schema": _schema(media_type)}}}}


def describe(app: FastAPI) -> None:
    """Have `app` describe its errors."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        known = app.openapi_schema is not None
        document = plain()
        if not known:
            _complete(document)
        return document

    app.openapi = described  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    parts = document["components"]
    schemas = parts["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    model = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= {**model.pop("$defs"), "Problem": model}
    content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    parts["responses"] = {
        str(status): {"description": text, "content": content} for status, text in ERRORS.items()
    }
    for methods in document["paths"].values():
        for method, operation in methods.items():
            _hoist(operation, schemas)
            for status in errors_of(operation, method):
                known = operation["responses"].get(str(status))
                if known is None or status == 422:
                    operation["responses"][str(status)] = {"$ref": f"#/components/responses/{status}"}
                else:
                    known["content"] |= content


def errors_of(operation: dict[str, Any], method: str) -> list[int]:
    """The errors of :data:`ERRORS` that an operation of the document may answer with."""
    body = "requestBody" in operation
    named = body or bool(operation.get("parameters"))
    found = [503]
    found += [401, 403] if "security" in operation else []
    # What needs no token has its own in the path or the body.
    found += [400, 403, 404, 422] if named else []
    found += [408, 413] if body else []
    found += [409] if method != "get" else []
    return sorted(set(found))


def _hoist(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Definitions of a body's model go where the references to them say that they are."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        for name, schema in content["schema"].pop("$defs", {}).items():
            schemas.setdefault(name, schema)


def _schema(media_type: str) -> dict[str, Any]:
    return {} if media_type.endswith(("json", "yaml")) else {"type": "string"}
