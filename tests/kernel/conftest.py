"""A service for the client's tests: the fake of this folder, or a real one named by the environment.

With ``PERIJOVE_TEST_URL`` and ``PERIJOVE_TEST_TOKEN`` set, the same tests talk to a running service, such as
``perijove up --no-hub``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.kernel.fake_service import FakeService, serving
from tests.kernel.fake_site import TOKEN


@dataclass(frozen=True)
class Service:
    """Where the service under test is."""

    url: str
    token: str
    fake: FakeService | None = None

    @property
    def env(self) -> dict[str, str]:
        """The environment a client of it has."""
        return {**os.environ, "PERIJOVE_URL": self.url, "PERIJOVE_TOKEN": self.token}


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for the whole session."""
    if url := os.environ.get("PERIJOVE_TEST_URL"):
        yield Service(url, os.environ["PERIJOVE_TEST_TOKEN"])
        return
    with serving(tmp_path_factory.mktemp("service")) as (url, fake):
        yield Service(url, TOKEN, fake)


@pytest.fixture
def fake_service(tmp_path: Path) -> Iterator[Service]:
    """A fake of the test's own, which may be broken on purpose."""
    with serving(tmp_path / "service", cores=1.0) as (url, fake):
        yield Service(url, TOKEN, fake)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any login, and an environment that names no service."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PERIJOVE_STATE", str(tmp_path / "no-state"))
    for name in ("PERIJOVE_URL", "PERIJOVE_TOKEN", "JUPYTERHUB_API_TOKEN", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return home
