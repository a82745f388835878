"""Bad requests: a clear error that names field, value and what would be accepted; the service unharmed."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Service


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"gpus": 64}, "gpus", "no node has 64 GPUs; the largest has 2"),
        ({"cpu": 5}, "cpu", "the largest has 4"),
        ({"memory": "1T"}, "memory", "no node has 1T of memory; the largest has 8G"),
        ({"cpu": -1}, "cpu", "at least 0.01"),
        ({"memory": "lots"}, "memory", "512M, 8G"),
        ({"array": "5:1"}, "array", "must not be before"),
        ({"name": "x" * 201}, "name", "at most 200"),
        ({"name": 12}, "name", "must be text"),
        ({"launcher": "slurm"}, "launcher", "offered: docker, process"),
        ({"image": "evil/image", "launcher": "process"}, "image", "runs no images"),
        ({"volumes": ["data"]}, "volumes", "you have: home"),
        ({"cwd": "/etc", "launcher": "docker"}, "cwd", "outside the volumes"),
        ({"cwd": "x", "launcher": "docker"}, "cwd", "absolute"),
        ({"depends_on": [77]}, "depends_on", "no such job"),
        ({"inputs": {"a": "sha256:" + "0" * 64}}, "inputs.a", "POST it to /files"),
        ({"user": "root"}, "user", "no container to be root in"),
        ({"gui": True}, "gui", "not supported"),
        ({"network": "none", "launcher": "process"}, "network", "not supported by launcher process"),
        ({"node": "n7"}, "node", "there are: n1"),
        ({"memmory": "1G"}, "memmory", "did you mean 'memory'"),
        ({"env": {"A": "x" * 200_000}}, "env", "KiB"),
    ],
)
async def test_a_bad_spec_is_refused_with_the_field(
    service: Service, spec: dict[str, Any], field: str, message: str
) -> None:
    service.controller.settings.default_launcher = "process"
    answer = await service.http.post("/jobs", json={"command": ["true"], **spec})
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["code"] == "invalid-spec"
    assert problem["errors"][0]["field"].startswith(field)
    assert message in problem["errors"][0]["message"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await service.http.get("/health")).status_code == 200


@pytest.mark.parametrize("launcher", ["process", "docker"])
async def test_a_time_limit_is_kept_by_the_node_where_the_launcher_cannot(
    service: Service, launcher: str
) -> None:
    spec = {"command": ["true"], "launcher": launcher, "time_limit": "1h"}
    answer = await service.http.post("/jobs", json=spec)
    assert answer.status_code == 201, answer.text
    assert answer.json()["spec"]["time_limit"] == 3600


async def test_an_image_outside_the_list_is_refused(service: Service) -> None:
    service.controller.settings.images = ["lab/*"]
    answer = await service.http.post(
        "/jobs", json={"command": ["true"], "launcher": "docker", "image": "evil/image:1"}
    )
    assert answer.status_code == 422
    assert "allowed: lab/*" in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"command": ["\\u0000"]}'])
async def test_what_is_no_spec_is_refused(service: Service, body: bytes) -> None:
    assert (await service.http.post("/jobs", content=body)).status_code == 422


async def test_a_huge_body_is_refused_before_it_is_read(service: Service) -> None:
    answer = await service.http.post("/jobs", content=b"x" * (2 << 20))
    assert answer.status_code == 413
    assert "1M" in answer.json()["detail"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eA=="}])
async def test_without_a_good_token_there_is_nothing(service: Service, headers: dict[str, str]) -> None:
    service.http.headers.pop("Authorization")
    for path in ("/jobs", "/jobs/1", "/nodes", "/me", "/events", "/site"):
        assert (await service.http.get(path, headers=headers)).status_code == 401


@pytest.mark.parametrize("ref", ["0", "99", "x", "1_1", "-1", "1e9", "9" * 40, "..%2f..%2fetc"])
async def test_an_unknown_job_is_404(service: Service, ref: str) -> None:
    for path in (f"/jobs/{ref}", f"/jobs/{ref}/logs", f"/jobs/{ref}/events", f"/jobs/{ref}/stats"):
        answer = await service.http.get(path)
        assert answer.status_code == 404
        assert answer.json()["code"] == "not-found"


async def test_an_unknown_route_is_a_problem_too(service: Service) -> None:
    answer = await service.http.get("/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
