"""The whole REST interface against its own OpenAPI document, by schemathesis, over real connections.

Requests are the same in each run. To look longer, by hand::

    PERIJOVE_API_EXAMPLES=100 pytest tests/security/test_schema.py

makes up that many requests of each sort for each operation.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from itertools import islice, zip_longest
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from perijove_hub.settings import Settings

from .expectations import TABLE, Whose
from .served import Served, served
from .stand import ROLES, SECRET, filled

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("PERIJOVE_API_EXAMPLES", "2"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
OPERATIONS = [operation for operation, expected in TABLE.items() if not expected.streams]
ASKING = ("owner", "administrator", "other")
OWN = {Whose.LOGIN: "login", Whose.ADMINISTRATORS: "administrator"}
"""Who may, where alice may not."""
FILLING = {"POST /device/authorization"}
"""Of these so many may wait; a long run meets the limit, which is a 503."""
METHODS = {"GET", "PUT", "POST", "PATCH", "DELETE", "TRACE", "QUERY"}
TIMEOUT = 60


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    state = tmp_path_factory.mktemp("state")
    with served(Settings(state=state, max_body=1 << 20)) as found:
        yield found


@pytest.fixture(scope="module")
def schema(service: Served) -> Any:
    return schemathesis.openapi.from_url(f"{service.address}/api/v1/openapi.json")


@pytest.fixture(scope="module")
def sessions(service: Served) -> Iterator[dict[str, requests.Session]]:
    """Connections by role."""
    found = {role: requests.Session() for role in ROLES}
    for role, session in found.items():
        session.headers["Authorization"] = service.token(role)
    yield found
    for session in found.values():
        session.close()


@pytest.fixture(autouse=True)
def undrained(service: Served, sessions: dict[str, requests.Session]) -> None:
    """What was asked before may have left the only node drained: then the service is not healthy."""
    path = f"/api/v1/nodes/{service.stand.node.name}/undrain"
    assert sessions["administrator"].post(service.address + path, timeout=TIMEOUT).status_code == 200


def names_of(service: Served, operation: str) -> dict[str, str]:
    """Something of alice's that the operation may be asked of."""
    making = service.stand.names(TABLE[operation], "lab", None)
    return asyncio.run_coroutine_threadsafe(making, service.loop).result(TIMEOUT)


@pytest.fixture(scope="module")
def there(service: Served) -> dict[str, dict[str, str]]:
    """What there is, by its kind: made while everything can be made."""
    kinds: dict[str, dict[str, str]] = {}
    for operation in OPERATIONS:
        kinds.setdefault(TABLE[operation].of, names_of(service, operation))
    return kinds


MALFORMED = [
    b"",
    b"\xff\xfe",
    b"{",
    b"[" * 60_000,
    b'{"command": NaN}',
    b"null",
    b'{"name": "\\ud800"}',
    b'{"command": ["true"], "name": "\\u0000", "time_limit": 1e999}',
]
ODD = ["%00", "%ff", "%2e%2e", "..%2f..", "1_1", str(2**70), "-1", "%F0%9F%90%8D" * 50]


def part_of(schema: Any, operation: str) -> Any:
    method, _, path = operation.partition(" ")
    return schema[f"/api/v1{path}"][method]


def bounds(schema: Any, part: Any) -> list[Case[Any]]:
    """Requests at the bounds of what the document allows, and just beyond."""
    made = (
        schema.iter_coverage_cases(part, generation_modes=[mode], generation_config=schema.config.generation)
        for mode in GenerationMode
    )
    return [case for cases in made for case in islice(cases, 5 * EXAMPLES)]


def made_up(part: Any) -> list[Case[Any]]:
    """Requests of all sorts, right and wrong."""
    found: list[Case[Any]] = []
    for mode in GenerationMode:

        @hypothesis_settings(
            max_examples=EXAMPLES,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(part.as_strategy(generation_mode=mode))
        def gather(case: Case[Any]) -> None:
            found.append(case)

        try:
            gather()
        except Unsatisfiable:
            continue  # nothing can be wrong with a request that has neither parameter nor body
    return found


def test_each_operation_does_what_it_is_for_as_documented(
    service: Served, schema: Any, sessions: dict[str, requests.Session]
) -> None:
    """What answers by heart, and not from a model, is looked at too."""
    wrong = []
    for operation in OPERATIONS:
        expected, part = TABLE[operation], part_of(schema, operation)
        if expected.whose is Whose.SIGNED:
            continue
        names = names_of(service, operation)
        method, _, path = operation.partition(" ")
        role = OWN.get(expected.whose, "owner")
        if expected.seen_by:
            role = expected.seen_by[0]
        body = filled(expected.body, names)
        sent: dict[str, Any] = {"data": body} if isinstance(body, str | bytes) else {"json": body}
        url = f"{service.address}/api/v1{filled(path, names)}"
        answer = sessions[role].request(method, url, **sent, timeout=TIMEOUT)
        if answer.status_code != expected.status:
            wrong.append((operation, answer.status_code, answer.text[:200]))
        part.Case().validate_response(answer, checks=CHECKS)
    assert wrong == []


@pytest.mark.parametrize("operation", OPERATIONS)
def test_whatever_is_sent_is_answered_as_documented(
    operation: str, schema: Any, sessions: dict[str, requests.Session], there: dict[str, dict[str, str]]
) -> None:
    part = part_of(schema, operation)
    names = there[TABLE[operation].of]
    in_path = re.findall(r"\{(\w+)\}", operation)
    for i, case in enumerate([*bounds(schema, part), *made_up(part)]):
        role = ASKING[i % len(ASKING)]
        if in_path and i % 2:
            case.path_parameters = {name: names.get(name, "x") for name in in_path}
        if case.query:
            case.query.pop("follow", None)  # it has no end
        answer = case.call(session=sessions[role], timeout=TIMEOUT)
        full = answer.status_code == 503 and operation in FILLING
        case.validate_response(answer, checks=CHECKS[1:] if full else CHECKS)
        if role == "other":
            assert SECRET not in answer.text


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_no_document_allows_is_refused(
    operation: str, service: Served, schema: Any, sessions: dict[str, requests.Session]
) -> None:
    """Bodies that are none, and names that mean something to a file system or a database."""
    method, _, path = operation.partition(" ")
    part = part_of(schema, operation)
    bodies = MALFORMED if part.body else [None]
    words = ODD if "{" in path else [""]
    for body, word in zip_longest(bodies, words):
        url = service.address + "/api/v1" + re.sub(r"\{\w+\}", word or "1", path)
        answer = sessions["administrator"].request(method, url, data=body, timeout=TIMEOUT)
        full = answer.status_code == 503 and operation in FILLING
        assert full or answer.status_code < 500, (url, body, answer.text)


def test_what_cannot_be_done_with_a_resource_is_answered_405(
    service: Served, schema: Any, sessions: dict[str, requests.Session]
) -> None:
    known = {
        path: {method.upper() for method in methods} for path, methods in schema.raw_schema["paths"].items()
    }
    for path in known:
        asked = re.sub(r"\{\w+\}", "1", path)
        # /workflows/explain is what /workflows/{number} could be too.
        there = [other for other in known if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", other), asked)]
        methods = set().union(*(known[other] for other in there))
        for method in sorted(METHODS - methods):
            answer = sessions["administrator"].request(method, service.address + asked, timeout=TIMEOUT)
            assert answer.status_code == 405, (method, path)
            assert set(answer.headers["Allow"].split(", ")) == methods, (method, path)
