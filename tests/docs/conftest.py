"""A Perijove of one user with plain processes, for the examples in the documentation."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import installed


@pytest.fixture(scope="session")
def perijove_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables under which `perijove` and Python find a service of their own."""
    state = tmp_path_factory.mktemp("state")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {"HOME": str(tmp_path_factory.mktemp("home")), "PATH": path, "COLUMNS": "200"}
    with installed(state, "--no-hub", "--launcher", "process", "--port", "0", env=env) as installation:
        found = {"PERIJOVE_URL": installation.url, "PERIJOVE_TOKEN": installation.token}
        yield {**os.environ, **env, **found, "PERIJOVE_STATE": str(state)}
