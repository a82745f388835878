"""More who listen, and who never finish what they send, than a service has file descriptors by default."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from installation import Installation, installed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LOW = 256


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Installation]:
    """Started from a shell that allows few open files, as many do."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > 2 * LOW
    resource.setrlimit(resource.RLIMIT_NOFILE, (LOW, hard))
    options = ("--no-hub", "--port", "0", "--launcher", "process")
    try:
        with installed(tmp_path / "state", *options) as installation:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            yield installation
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connect(site: Installation, request: str) -> socket.socket:
    url = urlsplit(site.endpoint["url"])
    connection = socket.create_connection((url.hostname, url.port or 80), timeout=10)
    connection.sendall(request.format(head=f"Authorization: Bearer {site.token}\r\nHost: x\r\n").encode())
    return connection


def test_listeners_and_half_requests_keep_nobody_out(site: Installation) -> None:
    serve = psutil.Process(site.pid("serve"))
    before = serve.num_fds()
    listen = "GET /api/v1/events HTTP/1.1\r\n{head}\r\n"
    half = "POST /api/v1/jobs HTTP/1.1\r\n{head}Content-Length: 1000\r\n\r\n{{"
    connections = [connect(site, request) for request in [listen] * LOW + [half] * 50]
    assert site.ended(site.submit(command=["true"]))["state"] == "succeeded"
    for connection in connections:  # abandoned, as by closed notebooks
        connection.close()
    deadline = time.monotonic() + 20
    while serve.num_fds() > before + 10:
        assert time.monotonic() < deadline, serve.num_fds()
        time.sleep(0.2)


def test_a_body_that_does_not_come_is_not_waited_for(site: Installation) -> None:
    connection = connect(site, "POST /api/v1/jobs HTTP/1.1\r\n{head}Content-Length: 1000\r\n\r\n{{")
    connection.settimeout(60)
    assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
