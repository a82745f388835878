"""`import perijove` and `%load_ext perijove` must cost a notebook nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "httpx",
    "ipywidgets",
    "jupyterhub",
    "cloudpickle",
    "papermill",
    "rich",
    "typer",
    "asyncssh",
    "sqlalchemy",
}


def loaded_after(code: str) -> set[str]:
    program = f"{code}\nimport sys, json; print(json.dumps([m for m in sys.modules]))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    return set(json.loads(out.splitlines()[-1]))


def test_import_is_light() -> None:
    assert not loaded_after("import perijove") & (HEAVY | {"pydantic", "asyncio", "IPython"})


def test_loading_the_extension_is_light() -> None:
    before = loaded_after("from IPython.core.interactiveshell import InteractiveShell as S; S.instance()")
    after = loaded_after(
        "from IPython.core.interactiveshell import InteractiveShell as S;"
        " S.instance().run_line_magic('load_ext', 'perijove')"
    )
    assert not (after - before) & (HEAVY | {"pydantic"})


@pytest.mark.parametrize("module", ["perijove.cli.app", "perijove.client"])
def test_the_command_line_needs_no_models(module: str) -> None:
    assert not loaded_after(f"import {module}") & {"pydantic_core", "rich", "httpx", "IPython", "jupyterhub"}


def test_a_notebooks_job_builds_no_grammar_of_iris(tmp_path: Path) -> None:
    """It would take as long as all else before the first cell."""
    command = [sys.executable, "-X", "importtime", "-m", "perijove.runner", "notebook"]
    env = {**os.environ, "PERIJOVE_JOB_DIR": str(tmp_path)}
    told = subprocess.run(command, env=env, capture_output=True, text=True, check=False).stderr
    assert "papermill.execute" in told
    assert " lark" not in told


def test_every_exported_name_exists() -> None:
    import perijove

    assert [name for name in perijove.__all__ if not hasattr(perijove, name)] == []


@pytest.mark.parametrize("first", ["import papermill", "import perijove.papermill"])
def test_papermill_finds_the_engine_whichever_is_imported_first(first: str) -> None:
    program = f"""{first}
from perijove.papermill import PerijoveEngine
from papermill.engines import papermill_engines
assert papermill_engines.get_engine("perijove") is PerijoveEngine
"""
    subprocess.run([sys.executable, "-c", program], check=True)
