"""Jobs that leave a trace each time they run."""

from __future__ import annotations

from pathlib import Path

import pytest
from witness import Witness


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    folder = tmp_path / "runs"
    folder.mkdir()
    return Witness(folder)
