"""What keeps the shape of the code: arrows between packages, sizes, names, and words that must stay out."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("hub_ext/perijove_hub", "kernel_ext/perijove", "spawners/perijove_spawners")
MODULE_LINES = 400
FUNCTION_LINES = 50

LONG_MODULES: dict[str, str] = {}
"""Path -> why it may be longer than MODULE_LINES."""
LONG_FUNCTIONS: dict[str, str] = {}
"""``path:function`` -> why it may be longer than FUNCTION_LINES."""

VAGUE = re.compile(r"(^|_)(utils?|common|managers?|helpers?|misc|tools?)$")
# Built from parts, so that this file does not hold what it looks for.
FORBIDDEN = {
    "a package registry's host": re.compile(
        r"\b(?:files\.)?py(?:pi|thonhosted)\.org|\b(?:deb|security)\.debian\.org|(?:archive|ports)\.ubuntu\.com"
        r"|registry\.npm(?:js\.org|mirror\.com)|\b(?:registry-1|index|hub|auth)\.docker\.(?:io|com)"
        r"|static\.crates\.io|proxy\.golang\.org|conda\.anaconda\.org"
    ),
    "a path of a developer's machine": re.compile(
        r"(?<![\w.$}/-])/(?:work/(?:main|shared)|tmp/(?:dev|v)/bin|root/\.|home/[a-z]+/(?:src|projects)/)"
    ),
}
LOCKS = re.compile(r"requirements[\w-]*\.lock")


@cache
def tracked() -> tuple[Path, ...]:
    """The files of the repository, those about to be added included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return tuple(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


@cache
def modules(*folders: str) -> tuple[Path, ...]:
    wanted = tuple(f"{folder}/" for folder in folders)
    return tuple(p for p in tracked() if p.suffix == ".py" and name_of(p).startswith(wanted))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function with its lines, its docstring left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = ast.get_docstring(node) is not None
            docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
            yield node.name, (node.end_lineno or 0) - node.lineno + 1 - docstring


def test_the_arrows_between_the_rooms_hold() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    ran = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]


def test_no_module_has_grown_too_long() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in modules(*ROOMS)}
    assert len(lengths) > 30
    too_long = {name: lines for name, lines in lengths.items() if lines > MODULE_LINES}
    assert set(too_long) == set(LONG_MODULES), too_long


def test_no_function_has_grown_too_long() -> None:
    found = {
        f"{name_of(path)}:{function}": lines
        for path in modules(*ROOMS)
        for function, lines in functions(path)
        if lines > FUNCTION_LINES
    }
    assert set(found) == set(LONG_FUNCTIONS), found


def test_files_are_named_after_what_is_in_them() -> None:
    parts = {
        part for path in modules(*ROOMS, "tests") for part in (path.stem, *path.relative_to(ROOT).parts[:-1])
    }
    assert [part for part in parts if VAGUE.search(part)] == []


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{name_of(path)}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(text.splitlines(), 1)
            if FORBIDDEN[what].search(line)
        ]
    assert found == []


def test_locks_hold_names_and_hashes_only() -> None:
    line_of_lock = re.compile(r"[a-z0-9._-]+==\S+( ; [^#]+)?( \\)?|    --hash=sha256:[0-9a-f]{64}( \\)?")
    locks = [path for path in tracked() if LOCKS.fullmatch(path.name)]
    assert len(locks) == 2
    for path in locks:
        lines = path.read_text().splitlines()
        assert [line for line in lines if not line_of_lock.fullmatch(line)] == []


def test_no_test_replaces_behaviour() -> None:
    """Real engines, and fakes that are products, instead of mocks."""
    found = []
    for path in modules("tests", *ROOMS):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Attribute) and ast.unparse(node) == "monkeypatch.setattr":
                names = ["monkeypatch.setattr"]
            if any(name.startswith(("unittest.mock", "monkeypatch.setattr", "mock.")) for name in names):
                found.append(f"{name_of(path)}:{node.lineno}")  # type: ignore[attr-defined]
    assert found == []


def test_packages_are_typed() -> None:
    assert [room for room in ROOMS if not (ROOT / room / "py.typed").exists()] == []
