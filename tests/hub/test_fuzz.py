"""Whatever is sent to whichever route: no 500, nothing of others, and a service that goes on."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from perijove.model import JobSpec
from perijove_hub.settings import Settings

from .test_roles import site

SECRET = "only-alice-knows"

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(),
    st.text(max_size=40),
    st.sampled_from(["8G", "1:3", "a100:2", "afterok:1", "home:ro", "..", "/", "sha256:" + "0" * 64, "\x00"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=8,
)
specs = st.fixed_dictionaries(
    {"command": st.just(["true"])},
    optional={name: values for name in [*JobSpec.model_fields, "cpus", "time"] if name != "command"},
)
words = st.one_of(
    st.integers(min_value=-(2**70), max_value=2**70).map(str),
    st.sampled_from(["1", "1_1", "x", "..", "%00", "%ff", "%2e%2e", "", "live"]),
    st.text(max_size=20),
)


@st.composite
def requests(draw: st.DrawFn, paths: list[tuple[str, str, list[str]]]) -> dict[str, Any]:
    """A request to one of the routes, with parts, query and body of all sorts."""
    path, method, names = draw(st.sampled_from(paths))
    while "{" in path:
        name = path[path.index("{") : path.index("}") + 1]
        path = path.replace(name, quote(draw(words), safe="%") or "0")
    query = draw(st.dictionaries(st.sampled_from([*names, "token", "zz"]), words, max_size=3))
    query.pop("follow", None)  # streams
    body = None
    if method in {"POST", "PUT", "PATCH"}:
        whole = st.one_of(specs, st.lists(specs, max_size=3), values).map(json.dumps)
        body = draw(st.one_of(whole.map(str.encode), st.binary(max_size=60)))
    headers = draw(
        st.dictionaries(
            st.sampled_from(["Idempotency-Key", "Content-Type", "Accept", "Range"]),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
            max_size=2,
        )
    )
    return {"method": method, "url": path, "params": query, "content": body, "headers": headers}


@pytest.mark.timeout(120)
async def test_any_request_is_answered(settings: Settings) -> None:
    async with site(settings) as by:
        alices = {"command": ["true"], "name": SECRET, "env": {"A": SECRET}, "labels": {"a": SECRET}}
        for _ in range(3):
            assert (await by["alice"].post("/jobs", json=alices)).status_code == 201
        document = (await by["bob"].get("/openapi.json")).json()
        paths = [
            (path.removeprefix("/api/v1"), method.upper(), [p["name"] for p in what.get("parameters", ())])
            for path, methods in document["paths"].items()
            for method, what in methods.items()
            if path not in {"/api/v1/events"} and path.startswith("/api/v1")
        ]
        assert len(paths) > 10
        found: list[dict[str, Any]] = []

        @hypothesis_settings(
            max_examples=400,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(requests(paths))
        def gather(request: dict[str, Any]) -> None:
            found.append(request)

        gather()
        for request in found:
            answer = await by["bob"].request(**request)
            assert answer.status_code < 500 or answer.status_code == 503, (request, answer.text)
            assert SECRET not in answer.text, request
        assert (await by["bob"].get("/health")).status_code == 200
        mine = (await by["alice"].get("/jobs")).json()["jobs"]
        assert [job["state"] for job in mine if job["ended"] is not None] == []
