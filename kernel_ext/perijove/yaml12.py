"""YAML as its version 1.2 has it, safe, with the line of everything: what people write by hand.

PyYAML reads YAML 1.1, in which ``no`` is false, ``1:30`` is 90 and ``1e3`` is text. Here the core schema of
YAML 1.2.2 (section 10.3.2) holds: only ``true`` and ``false`` are booleans, and ``1e3`` is a number. Names
that stand twice, aliases (which can grow without bound) and tags are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from perijove.model.errors import FieldError, InvalidSpecError

_LEAD = "tag:yaml.org,2002:"
_CORE: tuple[tuple[str, str, str], ...] = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
)
MAX_DIGITS = 4000
"""Of a whole number; Python reads 4300 (``sys.set_int_max_str_digits``)."""


class _Loader(yaml.SafeLoader):
    """The core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would read as something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)


for _name, _pattern, _first in _CORE:
    for _loader in (_Loader, _Dumper):
        firsts = ["" if c == "\0" else c for c in _first]
        _loader.add_implicit_resolver(_LEAD + _name, re.compile(rf"(?:{_pattern})\Z"), firsts)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    plain = value.replace("\n", "")
    style: str | None
    if not plain.isprintable():  # other line breaks too, which a plain or quoted text would not keep
        style = '"'
    else:
        style = "|" if plain != value and not re.search(r"\s\n|^\s", value) else None
    return dumper.represent_scalar(f"{_LEAD}str", value, style=style)


_Dumper.add_representer(str, _text)


class Lines:
    """Where in a document something stands."""

    def __init__(self, root: yaml.Node | None, name: str) -> None:
        self._root, self._name = root, name

    def place(self, field: str) -> str:
        """``flow.yaml:12`` for a path such as ``steps.prep.cpus``, or for the nearest that is there."""
        node, line = self._root, 1
        while isinstance(node, yaml.MappingNode | yaml.SequenceNode) and field:
            found = _below(node, field)
            if found is None:
                break
            line, node, field = found
        return f"{self._name}:{line}"


def _below(node: yaml.Node, field: str) -> tuple[int, yaml.Node, str] | None:
    if isinstance(node, yaml.SequenceNode):
        index, _, rest = field.partition(".")
        if not index.isdecimal() or int(index) >= len(node.value):
            return None
        below = node.value[int(index)]
        return below.start_mark.line + 1, below, rest
    # A name may hold dots: the longest that fits is meant.
    fitting = [(k, v) for k, v in node.value if field == k.value or field.startswith(f"{k.value}.")]
    if not fitting:
        return None
    key, below = max(fitting, key=lambda pair: len(pair[0].value))
    return key.start_mark.line + 1, below, field[len(key.value) + 1 :]


def read(text: str, name: str = "document") -> tuple[Any, Lines]:
    """The plain data in `text`, and where it stands. :class:`InvalidSpecError` names the line."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        return _data(node, name), Lines(node, name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _error(name, mark.line + 1 if mark else 1, _words(error)) from None
    except yaml.YAMLError as error:
        raise _error(name, 1, f"is not valid YAML: {error}") from None
    except RecursionError:
        raise _error(name, 1, "the document is nested too deeply") from None


def _words(error: yaml.MarkedYAMLError) -> str:
    return f"is not valid YAML: {', '.join(filter(None, [error.context, error.problem]))}"


def _error(name: str, line: int, message: str) -> InvalidSpecError:
    return InvalidSpecError(errors=[FieldError(f"{name}:{line}", "", message)])


def _data(node: yaml.Node | None, name: str) -> Any:
    seen: set[int] = set()

    def data(node: yaml.Node) -> Any:
        line = node.start_mark.line + 1
        if id(node) in seen:
            raise _error(name, line, "is used by an alias (*), and aliases are not read; write it out")
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return mapping(node)
        if isinstance(node, yaml.SequenceNode):
            if node.tag != f"{_LEAD}seq":
                raise _error(name, line, f"the tag {node.tag} is not read")
            return [data(part) for part in node.value]
        return _scalar(node, name)

    def mapping(node: yaml.MappingNode) -> dict[str, Any]:
        if node.tag != f"{_LEAD}map":
            raise _error(name, node.start_mark.line + 1, f"the tag {node.tag} is not read")
        found: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise _error(name, line, "a name must be text")
            if key.value in found:
                raise _error(name, line, f"the name {key.value!r} stands twice")
            found[key.value] = data(value)
        return found

    return None if node is None else data(node)


def _scalar(node: yaml.Node, name: str) -> Any:
    text: str = node.value
    match node.tag.removeprefix(_LEAD):
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int" if len(text) <= MAX_DIGITS:
            return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
        case "int":
            raise _error(name, node.start_mark.line + 1, "has too many digits")
        case "float":
            value = math.nan if text.lower().endswith(("inf", "nan")) else float(text)
            if not math.isfinite(value):
                raise _error(name, node.start_mark.line + 1, "must be a finite number")
            return value
    raise _error(name, node.start_mark.line + 1, f"the tag {node.tag} is not read")


def write(data: Mapping[str, Any]) -> str:
    """`data` as YAML, in the order it is in, that :func:`read` (and any reader of 1.1 or 1.2) reads back."""
    text: str = yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text
