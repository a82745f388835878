"""`import perijove` and `%load_ext perijove` must cost a notebook nothing."""

from __future__ import annotations

import json
import subprocess
import sys

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


def test_every_exported_name_exists() -> None:
    import perijove

    assert [name for name in perijove.__all__ if not hasattr(perijove, name)] == []
