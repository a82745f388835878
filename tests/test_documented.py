"""Whatever people can use is documented: read from the live objects, so that nothing can be forgotten."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import live_reference
import pytest

import perijove
from perijove import model, version1
from perijove.arguments import submit_parser
from perijove.magics import NAMES, PerijoveMagics
from perijove.model import (
    BlockerKind,
    ErrorCode,
    JobOptions,
    JobSpec,
    Parameter,
    PerijoveError,
    ReasonCode,
    State,
    Step,
    Workflow,
)
from perijove.model.spec import FEATURES
from perijove_hub.admission import NOT_YET
from perijove_hub.settings import ManagedAccount, Settings, VolumeSetting
from perijove_spawners.registry import available

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CODE = re.compile(r"`+([^`]+)`+")


@cache
def page(name: str) -> str:
    return (DOCS / name).read_text()


def words(*names: str) -> set[str]:
    """Words that stand as code on these pages."""
    spans = [span for name in names for span in CODE.findall(page(name))]
    return {word for span in spans for word in re.split(r"[^\w%./{}-]+", span)}


def missing(wanted: Iterator[str] | list[str], *names: str) -> list[str]:
    return sorted(set(wanted) - words(*names))


# The words


@pytest.mark.parametrize("name", sorted(model.__all__))
def test_every_public_word_says_what_it_is(name: str) -> None:
    found = getattr(model, name)
    if inspect.isclass(found) or inspect.isroutine(found):
        assert (found.__doc__ or "").strip()
        assert not (found.__doc__ or "").startswith(f"{name}("), "a generated docstring"


def test_every_field_of_a_spec_is_on_its_page() -> None:
    assert missing(list(JobSpec.model_fields), "reference/job-spec.md") == []


def test_no_page_names_a_field_that_is_not_there() -> None:
    table_rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+)", page("reference/job-spec.md"), re.MULTILINE)
    named = {name for row in table_rows for name in re.findall(r"\w+", row)}
    assert named <= set(JobSpec.model_fields)


def test_every_field_of_a_workflow_is_on_its_page() -> None:
    fields = [name for cls in (Workflow, Parameter, Step) for name in cls.model_fields]
    assert missing(fields, "reference/workflow-document.md") == []


def test_the_page_of_workflows_names_no_field_that_is_not_there() -> None:
    text = page("reference/workflow-document.md")
    native, _, first = text.partition("## Version 1")
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", native, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"\w+", row)} - {"item", "index"}
    assert named == {*Workflow.model_fields, *Parameter.model_fields, *OWN_FIELDS}
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", first, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"\w+", row)} == VERSION_1


OWN_FIELDS = {name for name in Step.model_fields if name not in JobOptions.model_fields}
VERSION_1 = set(version1._Job.model_fields) - {version1.KEY}


def test_the_page_marks_what_is_refused_as_not_supported_yet() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ○", page("reference/job-spec.md"), re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"\w+", row)) == sorted(NOT_YET)


def test_every_state_and_reason_is_on_its_page() -> None:
    assert missing([state.value for state in State], "reference/states-and-reasons.md") == []
    assert missing([reason.value for reason in ReasonCode], "reference/states-and-reasons.md") == []
    rows = re.findall(
        r"^\| `(\w+)` \|", page("reference/states-and-reasons.md").partition("## Blockers")[2], re.M
    )
    assert rows == [kind.value for kind in BlockerKind]


def test_every_feature_of_launchers_is_on_its_page() -> None:
    assert missing(list(FEATURES), "reference/launcher-contract.md") == []


def error_classes(root: type[PerijoveError]) -> Iterator[type[PerijoveError]]:
    for cls in root.__subclasses__():
        yield cls
        yield from error_classes(cls)


def test_every_error_says_what_it_means_and_is_on_its_page() -> None:
    import perijove.connection
    import perijove.handle  # noqa: F401

    classes = [cls for cls in error_classes(PerijoveError) if cls.__module__.startswith("perijove.")]
    assert len(classes) > 9
    assert [cls.__name__ for cls in classes if "__doc__" not in vars(cls) or not cls.__doc__] == []
    assert missing([cls.__name__ for cls in classes], "reference/errors.md") == []
    assert missing([code.value for code in ErrorCode], "reference/errors.md") == []


# Python, the command line, the magics


def test_every_public_name_is_on_the_pages_of_python_or_errors() -> None:
    pages = page("reference/python.md") + page("reference/errors.md") + page("reference/job-spec.md")
    pages += page("reference/states-and-reasons.md")
    internal = {"__version__", "load_ipython_extension", "unload_ipython_extension"}
    assert [
        name for name in perijove.__all__ if name not in internal and not re.search(rf"\b{name}\b", pages)
    ] == []


HANDLES = [perijove.Client, perijove.Job, perijove.AsyncClient, perijove.AsyncJob]
HANDLES += [perijove.Workflow, perijove.Run, perijove.AsyncRun]


@pytest.mark.parametrize("cls", HANDLES)
def test_every_method_says_what_it_does(cls: type) -> None:
    silent = [
        name
        for name, member in inspect.getmembers(cls, lambda m: inspect.isroutine(m) or isinstance(m, property))
        if not name.startswith("_") and not inspect.getdoc(member)
    ]
    assert silent == []


COMMANDS = live_reference.all_commands()


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_every_command_and_option_says_what_it_does(path: tuple[str, ...], command: Any) -> None:
    assert command.help
    assert [p.name for p in command.params if not p.hidden and not p.help] == []


def test_every_command_is_on_a_page_that_somebody_wrote() -> None:
    written = "".join(path.read_text() for path in DOCS.rglob("*.md") if "_build" not in path.parts)
    written += (ROOT / "README.md").read_text()
    unnamed = [
        path[-1]
        for path, _ in COMMANDS
        if not re.search(rf"`[^`]*\b{path[-1]}\b|perijove {path[-1]}", written)
    ]
    assert unnamed == []


def test_every_magic_is_on_its_page_and_says_what_it_does() -> None:
    assert missing([f"%{name}" for name in NAMES] + ["%%submit"], "reference/magics.md") == []
    assert [name for name in NAMES if not getattr(PerijoveMagics, name).__doc__] == []


def test_every_option_of_submit_says_what_it_does() -> None:
    silent = [action.option_strings for action in submit_parser()._actions if not action.help]
    # what `-p NAME VALUE` means, its own words say
    assert silent in ([], [["-p", "--parameter"], ["-e", "--env"], ["--label"]])


# The service and the nodes


def test_every_setting_says_what_it_does() -> None:
    documented = live_reference.attribute_docs("perijove_hub.settings", "Settings")
    assert [name for name in Settings.model_fields if not documented.get(name)] == []
    assert VolumeSetting.__doc__
    assert ManagedAccount.__doc__


def test_every_setting_is_on_the_page() -> None:
    table = live_reference.settings()
    assert [name for name in Settings.model_fields if f"| `{name}` |" not in table] == []
    assert "live-reference} settings" in page("operate/configuration.md")


def routes() -> list[tuple[str, str, dict[str, Any]]]:
    paths = live_reference.openapi()["paths"]
    return [
        (method, path, operation) for path, methods in paths.items() for method, operation in methods.items()
    ]


def test_every_route_says_what_it_does() -> None:
    found = routes()
    assert len(found) > 10
    assert [f"{method} {path}" for method, path, operation in found if not operation.get("description")] == []


def test_every_route_is_on_the_page() -> None:
    assert "live-reference} routes" in page("reference/rest.md")
    table = live_reference.routes()
    assert [path for method, path, _ in routes() if f"`{method.upper()} {path}`" not in table] == []


def test_every_launcher_is_on_the_page() -> None:
    assert missing([f"{name}" for name in available()], "operate/launchers.md") == []
    assert [name for name, point in available().items() if not point.load().__doc__] == []


def test_every_package_says_what_it_is() -> None:
    import perijove_hub
    import perijove_spawners

    packages: list[ModuleType] = [perijove, model, perijove_hub, perijove_spawners]
    assert [package.__name__ for package in packages if not package.__doc__] == []


def test_every_library_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    names = {re.split(r"[^\w-]", requirement.lower())[0] for requirement in wanted} - {
        "perijove",
        "distributed",
    }
    text = page("decisions.md").lower()
    assert [name for name in sorted(names) if name not in text] == []


# The pages themselves


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("html")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-E",
        "-W",
        "--keep-going",
        "-b",
        "html",
        str(DOCS),
        str(target),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return target


@pytest.mark.slow
def test_the_pages_build_without_a_warning_and_hold_every_public_word(built: Path) -> None:
    inventory = zlib.decompress((built / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    names = {line.split()[0].rpartition(".")[2] for line in inventory.splitlines()}
    assert [name for name in model.__all__ if name not in names] == []


@pytest.mark.slow
def test_the_pages_load_nothing_from_elsewhere(built: Path) -> None:
    outside = re.compile(r"""<(?:script|link|img)[^>]+(?:src|href)=["']https?://""")
    assert [path.name for path in built.rglob("*.html") if outside.search(path.read_text())] == []
