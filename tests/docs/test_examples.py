"""The examples in README and documentation run, and print what the page says.

``console`` blocks are a shell session (``$`` and ``>`` begin what is typed), ``pycon`` a Python session,
``ipython`` the cells of a notebook. ``...`` stands for any text. Blocks of other languages are not run.
"""

from __future__ import annotations

import doctest
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts),
]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MARK = "@@ end of an example @@"
SECONDS = 110
CELLS = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in json.load(sys.stdin):
    if not shell.run_cell(cell, store_history=True).success:
        sys.exit(f"this cell failed:\\n{cell}")
"""


def blocks(path: Path, language: str) -> list[str]:
    return [text for found, text in FENCE.findall(path.read_text()) if found == language]


def pages(language: str) -> list[Path]:
    found = [path for path in PAGES if blocks(path, language)]
    assert found
    return found


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def session(text: str) -> list[tuple[str, str]]:
    """The commands of a shell session, each with what it prints."""
    steps: list[tuple[str, str]] = []
    for line in text.splitlines(keepends=True):
        if line.startswith("$ "):
            steps.append((line[2:], ""))
        elif line.startswith("> ") and not steps[-1][1]:
            steps[-1] = (steps[-1][0] + line[2:], "")
        else:
            steps[-1] = (steps[-1][0], steps[-1][1] + line)
    return steps


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a page's examples run; it has the notebook that some of them name."""
    cells = [
        new_code_cell("alpha = 1.0", metadata={"tags": ["parameters"]}),
        new_code_cell("print('alpha is', alpha)"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "train.ipynb")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", pages("console"), ids=page_name)
def test_shell_sessions(page: Path, perijove_environment: dict[str, str], folder: Path) -> None:
    steps = [step for block in blocks(page, "console") for step in session(block)]
    script = "".join(f"{command}echo '{MARK}'\n" for command, _ in steps)
    ran = subprocess.run(
        ["bash"],
        input=script,
        cwd=folder,
        env=perijove_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    printed = ran.stdout.split(f"{MARK}\n")
    assert len(printed) == len(steps) + 1, ran.stdout
    check = doctest.OutputChecker().check_output
    wrong = [
        f"$ {command}expected:\n{expected}printed:\n{got}"
        for (command, expected), got in zip(steps, printed, strict=False)
        if not check(expected, got, FLAGS)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages("pycon"), ids=page_name)
def test_python_sessions(page: Path, perijove_environment: dict[str, str], folder: Path) -> None:
    text = folder / page.with_suffix(".txt").name
    text.write_text("\n".join(blocks(page, "pycon")))
    command = [sys.executable, "-m", "doctest", "-o", "ELLIPSIS", "-o", "NORMALIZE_WHITESPACE", str(text)]
    ran = subprocess.run(
        command,
        cwd=folder,
        env=perijove_environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize("page", pages("ipython"), ids=page_name)
def test_notebook_cells(page: Path, perijove_environment: dict[str, str], folder: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", CELLS],
        input=json.dumps(blocks(page, "ipython")),
        cwd=folder,
        env=perijove_environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


LINK = re.compile(r"\]\(([^)#:]+?)(?:#[^)]*)?\)")


@pytest.mark.parametrize(
    "page", [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")], ids=page_name
)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
