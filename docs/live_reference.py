"""Reference tables from the live objects: ``{live-reference} commands``, or another of SECTIONS.

Each function gives Markdown; the directive puts it into the page. What cannot be imported fails the build.
Everything is imported here and at once: autodoc imports twice what is new to it, which breaks pydantic.
"""

from __future__ import annotations

import argparse
import inspect
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

from perijove.arguments import submit_parser
from perijove.cli.app import app as command_line
from perijove.workflow_cell import workflow_parser
from perijove_hub.app import create_app
from perijove_hub.identity import SingleUser
from perijove_hub.settings import Settings
from perijove_spawners.fabric.port import DirectFabric
from perijove_spawners.registry import available


def commands(level: int = 2) -> str:
    """Every command of ``perijove`` with its arguments and options."""
    return "\n\n".join(_command(path, command, level) for path, command in all_commands())


def all_commands() -> list[tuple[tuple[str, ...], Any]]:
    """Each visible command with the words that call it."""
    return list(_walk(get_command(command_line), ("perijove",)))


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name in command.list_commands(None):
        sub = command.get_command(None, name)
        if hasattr(sub, "load"):  # of another package, by entry point
            sub = sub.load()
        if sub and not sub.hidden:
            yield from _walk(sub, (*path, name))


def _command(path: tuple[str, ...], command: Any, level: int) -> str:
    rows = [_parameter(p) for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
    table = "| | |\n|---|---|\n" + "\n".join(rows) if rows else ""
    text = re.sub(r"(?m)^perijove ", "    perijove ", inspect.cleandoc(command.help or ""))
    return f"{'#' * level} `{' '.join(path)}`\n\n{text}\n\n{table}"


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"| `{(parameter.metavar or parameter.name).upper()}` | {_cell(parameter.help or '')} |"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    value = (
        "" if parameter.is_flag or parameter.count else f" {(parameter.metavar or parameter.name).upper()}"
    )
    return f"| {names}{value} | {_cell(parameter.help or '')} |"


def routes(level: int = 2) -> str:
    """Every request the service answers, from its OpenAPI document."""
    parts = []
    for path, operations in openapi()["paths"].items():
        for method, operation in operations.items():
            rows = [
                f"| `{p['name']}` | {p['in']} | {_cell(p.get('description', ''))} |"
                for p in operation.get("parameters", [])
            ]
            table = "| parameter | in | |\n|---|---|---|\n" + "\n".join(rows) if rows else ""
            text = operation.get("description", "")
            parts.append(f"{'#' * level} `{method.upper()} {path}`\n\n{text}\n\n{table}")
    return "\n\n".join(parts)


def openapi() -> dict[str, Any]:
    """The service's OpenAPI document; nothing is started for it."""
    with tempfile.TemporaryDirectory() as state:
        settings = Settings(state=Path(state), mode="single", prefix="")
        return create_app(settings, fabric=DirectFabric(), identities=SingleUser("", "")).openapi()


def settings(_level: int = 2) -> str:
    """Every setting with its type, default and meaning."""
    rows = [
        f"| `{name}` | {_default(field)} | {_cell(meaning)} |"
        for name, field in Settings.model_fields.items()
        for meaning in [attribute_docs("perijove_hub.settings", "Settings").get(name, "")]
    ]
    return "| setting | default | |\n|---|---|---|\n" + "\n".join(rows)


def attribute_docs(module: str, cls: str) -> dict[str, str]:
    """Attribute of a class -> the docstring below it in the source."""
    found = ModuleAnalyzer.for_module(module).find_attr_docs()
    return {attribute: " ".join(lines).strip() for (owner, attribute), lines in found.items() if owner == cls}


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None or field.default in (None, "", [], {}):
        return ""
    value = field.default
    return f"`{', '.join(value) if isinstance(value, list) else value}`"


def launchers(_level: int = 2) -> str:
    """Every launcher that is installed, with what its class says."""
    rows = [
        f"| `{name}` | {_cell((inspect.getdoc(point.load()) or '').splitlines()[0])} |"
        for name, point in available().items()
    ]
    return "| launcher | |\n|---|---|\n" + "\n".join(rows)


def magic_options(parser: argparse.ArgumentParser) -> str:
    """The options of a magic."""
    rows = []
    for action in parser._actions:
        if "--help" not in action.option_strings:
            names = ", ".join(f"`{name}`" for name in action.option_strings)
            choices = "\\|".join(action.choices or ())
            value = choices or action.metavar if action.nargs != 0 else ""
            text = " ".join(value) if isinstance(value, tuple) else value or ""
            rows.append(f"| {names} {text} | {_cell((action.help or '').replace('%%', '%'))} |")
    return "| | |\n|---|---|\n" + "\n".join(rows)


def _cell(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


SECTIONS: dict[str, Callable[[int], str]] = {
    "commands": commands,
    "routes": routes,
    "settings": settings,
    "launchers": launchers,
    "submit-options": lambda _level: magic_options(submit_parser()),
    "workflow-options": lambda _level: magic_options(workflow_parser()),
}


class LiveReference(SphinxDirective):
    """The directive; its argument names the section."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The section's nodes."""
        return self.parse_text_to_nodes(SECTIONS[self.arguments[0]](2), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's hook."""
    app.add_directive("live-reference", LiveReference)
    return {"parallel_read_safe": True}
