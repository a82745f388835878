"""The tour that new users run first."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from tests.kernel.conftest import Service

TOUR = Path(__file__).parents[2] / "binder" / "tour.ipynb"


def test_the_tour_is_clean() -> None:
    notebook = nbformat.read(TOUR, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.id for cell in code if cell.outputs or cell.execution_count] == []
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_tour_runs(service: Service, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERIJOVE_URL", service.url)
    monkeypatch.setenv("PERIJOVE_TOKEN", service.token)
    # As in a notebook server, where `!papermill` is found beside its Python.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(TOUR, 4)
    NotebookClient(notebook, timeout=180, resources={"metadata": {"path": str(home)}}).execute()
    cells = {cell.id: cell for cell in notebook.cells}
    outputs = cells["submit"].outputs
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("<table" in output.get("data", {}).get("text/html", "") for output in outputs)
    assert "0.001" in cells["back"].outputs[0].data["text/plain"]
    assert "alpha 10" in (home / "study-10.ipynb").read_text()
    assert cells["error"].outputs[-1].ename == "JobFailedError"
