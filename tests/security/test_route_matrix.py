"""Every operation of the OpenAPI document, by every role, on its own, another's and an absent object.

What is expected is data: :mod:`.expectations`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from perijove_hub.settings import Settings

from .expectations import TABLE, Expected, Whose
from .stand import ABSENT, ROLES, SECRET, STRANGERS, Stand, filled, standing

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

OBJECTS = (Whose.OBJECT, Whose.OWN)
OUTSIDE = ("disabled", "waiting")
STRANGE_TO_ALICE = ("other", "guest", "no administrator any more")
SEE = {"lab": ("owner", "lead", "administrator", "act-as"), "other": ("owner", "administrator", "act-as")}
"""Who sees what is alice's, by the project it is in."""
TELLING = re.compile(r"Traceback|site-packages|File \"/|sqlite|psycopg|/hub_ext/")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    state = tmp_path_factory.mktemp("state")
    async with standing(Settings(state=state, max_body=1 << 20)) as found:
        yield found


async def ask(
    stand: Stand, role: str, operation: str, expected: Expected, names: dict[str, str]
) -> httpx.Response:
    """One request; of an answer without an end only the beginning."""
    method, _, path = operation.partition(" ")
    body = expected.body
    more: dict[str, Any] = {}
    if isinstance(body, str | bytes):
        more["content"] = filled(body, names) if isinstance(body, str) else body
    elif body is not None or method in {"POST", "PUT", "PATCH"}:
        more["json"] = filled(body, names)
    query = {key: filled(value, names) for key, value in expected.query.items()}
    headers = {"Origin": "https://evil.example"}
    request = stand.by[role].build_request(method, filled(path, names), params=query, headers=headers, **more)
    if not expected.streams:
        return await stand.by[role].send(request)
    return await stand.opened(role, request)


def may_write(role: str, operation: str) -> bool:
    return role != "reader" or operation.startswith("GET ")


def is_safe(answer: httpx.Response, state: Path) -> None:
    """What holds for every answer."""
    headers = answer.headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "sandbox" in headers["content-security-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in headers if name.startswith("access-control-")]
    assert "server" not in headers
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        # What OAuth has errors for has those (RFC 6749, section 5.2).
        kind = "application/json" if "/device/" in str(answer.request.url) else "application/problem+json"
        assert headers["content-type"] in {kind, "application/problem+json"}
        assert not TELLING.search(answer.text), answer.text
        assert str(state) not in answer.text
        assert SECRET not in answer.text


async def test_every_operation_is_in_the_table(stand: Stand) -> None:
    listed = {
        f"{method.upper()} {path.removeprefix('/api/v1')}"
        for path, methods in stand.app.openapi()["paths"].items()
        for method in methods
    }
    assert listed == set(TABLE), "say in tests/security/expectations.py what it answers whom"


NOT_MADE = {"DELETE /nodes/join-tokens/{node}"}
"""Of these there is none on a stand without certificates."""


async def test_what_a_path_names_is_there_to_be_asked_for() -> None:
    """Else what the other tests compare would be two absent ones."""
    naming = {key for key, expected in TABLE.items() if "{" in key and expected.whose is not Whose.SIGNED}
    assert {key for key in naming if not TABLE[key].of} == NOT_MADE


async def test_who_is_not_known_gets_nothing(stand: Stand) -> None:
    for operation, expected in TABLE.items():
        if expected.whose in {Whose.ALL, Whose.SIGNED}:
            continue
        for role in STRANGERS:
            answer = await ask(stand, role, operation, expected, ABSENT)
            is_safe(answer, stand.state)
            assert answer.status_code == 401, (operation, role, answer.text)
            assert answer.headers["www-authenticate"] == "Bearer"


async def test_who_may_not_be_here_gets_nothing(stand: Stand) -> None:
    """Disabled, or not activated yet; and the hub's own login, which is for logging in only."""
    for operation, expected in TABLE.items():
        if expected.whose in {Whose.ALL, Whose.SIGNED}:
            continue
        for role in OUTSIDE if expected.whose is Whose.LOGIN else (*OUTSIDE, "login"):
            answer = await ask(stand, role, operation, expected, ABSENT)
            is_safe(answer, stand.state)
            assert answer.status_code == 403, (operation, role, answer.text)


@pytest.mark.parametrize("operation", [key for key in TABLE if TABLE[key].whose is Whose.EVERYBODY])
async def test_what_is_for_everybody_tells_nothing_of_others(stand: Stand, operation: str) -> None:
    expected = TABLE[operation]
    for role in ("owner", "reader", "lead", "administrator", "act-as", *STRANGE_TO_ALICE):
        names = await stand.names(expected, "lab", stand.kept, role)
        answer = await ask(stand, role, operation, expected, names)
        is_safe(answer, stand.state)
        wanted = expected.also.get(role, expected.status)
        assert answer.status_code == (wanted if may_write(role, operation) else 403), (role, answer.text)
        if role in STRANGE_TO_ALICE:
            assert SECRET not in answer.text
            assert "alice" not in answer.text, (role, answer.text)


@pytest.mark.parametrize("operation", [key for key in TABLE if TABLE[key].whose in OBJECTS])
async def test_anothers_object_looks_like_none(stand: Stand, operation: str) -> None:
    """In a project that the lead does not lead."""
    project = "other"
    expected = TABLE[operation]
    there = await stand.names(expected, project, stand.kept)
    absent = {**there, **{name: ABSENT[name] for name in expected.names(operation)}}
    hidden_from = [role for role in ("lead", *STRANGE_TO_ALICE) if role not in SEE[project]]
    if (expected.of == "file" or expected.whose is Whose.OWN) and "lead" not in hidden_from:
        hidden_from.append("lead")
    hidden_from += ["administrator", "act-as"] if expected.whose is Whose.OWN else []
    if expected.seen_by:
        hidden_from = [
            role for role in ("owner", "act-as", *STRANGE_TO_ALICE) if role not in expected.seen_by
        ]
    hidden_from = [role for role in hidden_from if role not in expected.also]
    for role in hidden_from:
        answer = await ask(stand, role, operation, expected, there)
        none = await ask(stand, role, operation, expected, absent)
        is_safe(answer, stand.state)
        assert (answer.status_code, none.status_code) == (404, 404), (role, answer.text, none.text)
        assert _anonymous(answer, asked(operation, there)) == _anonymous(none, asked(operation, absent)), role


def asked(operation: str, names: dict[str, str]) -> dict[str, str]:
    """Those names that stand in the path."""
    return {name: names[name] for name in re.findall(r"\{(\w+)\}", operation) if name in names}


def _anonymous(answer: httpx.Response, names: dict[str, str]) -> tuple[str, dict[str, str]]:
    """An answer without the name that was asked for in it."""
    text = answer.text
    for name in names.values():
        text = re.sub(rf"(?<!\w){re.escape(name[:80])}(?!\w)", "?", text)
    headers = {key: value for key, value in answer.headers.items() if key not in {"content-length", "date"}}
    return text, headers


@pytest.mark.parametrize("operation", [key for key in TABLE if TABLE[key].whose in OBJECTS])
async def test_who_sees_an_object_gets_the_right_answer(stand: Stand, operation: str) -> None:
    """In a project that the lead leads."""
    project = "lab"
    expected = TABLE[operation]
    shared = stand.kept if operation.startswith("GET ") else None
    seeing = [role for role in SEE[project] if expected.of != "file" or role != "lead"]
    if expected.whose is Whose.OWN:
        seeing = ["owner", *(role for role in SEE["other"] if role in expected.also)]
    seeing = list(expected.seen_by) or [*seeing, "reader"]
    for role in seeing:
        names = await stand.names(expected, project, shared)
        answer = await ask(stand, role, operation, expected, names)
        is_safe(answer, stand.state)
        wanted = expected.also.get(role, expected.status) if may_write(role, operation) else 403
        assert answer.status_code == wanted, (role, answer.text)
        absent = {**names, **{name: ABSENT[name] for name in expected.names(operation)}}
        none = await ask(stand, role, operation, expected, absent)
        missing = expected.absent.get(role, 404)
        assert none.status_code == (missing if may_write(role, operation) else 403), (role, none.text)


@pytest.mark.parametrize("operation", [key for key in TABLE if TABLE[key].whose is Whose.ADMINISTRATORS])
async def test_what_is_not_for_users_is_refused_alike(stand: Stand, operation: str) -> None:
    """By a user it cannot even be asked whether the object is there."""
    expected = TABLE[operation]
    there = await stand.names(expected, "lab", stand.kept)
    absent = {**there, **{name: ABSENT[name] for name in expected.names(operation)}}
    roles = ["owner", "reader", "other", "no administrator any more", "act-as", "guest", "lead"]
    roles += ["administrator"] if expected.whose is Whose.LOGIN else []
    for role in roles:
        if role in expected.also:
            continue
        answers = [await ask(stand, role, operation, expected, names) for names in (there, absent)]
        for answer in answers:
            is_safe(answer, stand.state)
            assert answer.status_code == 403, (role, answer.text)
        assert _anonymous(answers[0], asked(operation, there)) == _anonymous(
            answers[1], asked(operation, absent)
        )
    for role, status in {"administrator": expected.status, **expected.also}.items():
        if expected.whose is Whose.ADMINISTRATORS:
            names = await stand.names(expected, "lab", None)
            answer = await ask(stand, role, operation, expected, names)
            is_safe(answer, stand.state)
            assert answer.status_code == status, (role, answer.text)


async def test_no_body_is_read_for_who_is_not_known(stand: Stand) -> None:
    """A stranger must not be able to have the service hold, or parse, anything."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 16 << 20:
            sent += 1 << 16
            yield b'{"a": "' + b"x" * ((1 << 16) - 7)

    for operation, expected in TABLE.items():
        method, _, path = operation.partition(" ")
        if method == "GET" or expected.whose is Whose.SIGNED:
            continue
        sent = 0
        answer = await stand.by["anonymous"].request(method, filled(path, ABSENT), content=endless())
        allowed = {413, 422, 400} if expected.whose is Whose.ALL else {401}
        assert answer.status_code in allowed, (operation, answer.text)
        # httpx's transport reads a piece ahead.
        most = 4 << 20 if expected.whose is Whose.ALL else 1 << 17
        assert sent <= most, f"{operation}: {sent} bytes were taken"


async def test_one_token_is_not_another_ones(stand: Stand) -> None:
    """By a guess at what a token's text may be mistaken for."""
    good = str(stand.by["owner"].headers["authorization"]).partition(" ")[2]
    odd: list[Any] = [
        good[:-1],
        good.upper(),
        good + "x",
        good + "\x00",
        " " + good[1:],
        "",
        "null",
        "undefined",
    ]
    for token in odd:
        answer = await stand.by["anonymous"].get(
            "/jobs", headers={b"Authorization": f"Bearer {token}".encode()}
        )
        assert answer.status_code == 401, token
    twice = [(b"Authorization", f"Bearer {good}".encode()), (b"Authorization", b"Bearer other")]
    assert (await stand.by["anonymous"].get("/jobs", headers=twice[::-1])).status_code == 401
    for name in ("token", "access_token", "Authorization"):
        assert (await stand.by["anonymous"].get("/jobs", params={name: good})).status_code == 401
    for cookie in ("perijove-session", "Authorization", "token"):
        answer = await stand.by["anonymous"].get("/jobs", headers={"Cookie": f"{cookie}={good}"})
        assert answer.status_code == 401


async def test_who_asks_at_once_gets_their_own(stand: Stand) -> None:
    """No state of one request is seen by another."""
    roles = [role for role in ROLES if role not in (*OUTSIDE, "login")]
    answers = await asyncio.gather(*(stand.by[role].get("/me") for role in roles * 20))
    for role, answer in zip(roles * 20, answers, strict=True):
        assert answer.json()["name"] == ROLES[role].name
