"""A step's parameters against the notebook's own: the names, and where they can be told the types, that its
cell tagged ``parameters`` sets.

papermill can list them too; it passes over lines with two ``=`` signs, and what it does not find cannot be
called unknown.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from typing import Any

from perijove.model import FieldError
from perijove.model.places import mark
from perijove_hub.workflows.cells import document_of, python_cell

TAG = "parameters"
_SHOWN = 30
_ACCEPTED: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "list": (list,),
    "tuple": (list,),
    "set": (list,),
    "dict": (dict,),
    "None": (type(None),),
}
"""Type in Python -> what JSON may give it."""
_WORDS: dict[type, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def notebook_errors(notebook: bytes | Mapping[str, Any], parameters: Mapping[str, Any]) -> list[FieldError]:
    """What is wrong with `parameters` of a step that runs `notebook`, by field ``parameters.NAME``.

    Values that are not known yet (references, templates) are checked by name only, and those of notebooks
    whose kernel is not Python's not at all. Raises ``ValueError`` when it is no notebook. It reads Python:
    call it in a thread.
    """
    document = document_of(notebook)
    if not isinstance(document.get("nbformat"), int):
        raise ValueError("must be a notebook (an object with nbformat)")
    tree = python_cell(document, TAG) if parameters else None
    if tree is None:
        return []
    known = _names(tree)
    return [error for name in parameters for error in _errors(name, parameters[name], known)]


def _errors(name: str, value: Any, known: Mapping[str, tuple[type, ...]]) -> Iterator[FieldError]:
    field = f"parameters.{name}"
    if name not in known:
        names = [*known][:_SHOWN]
        more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
        listed = (
            f"it has: {', '.join(names)}{more}" if names else f"it has no cell tagged {TAG} that sets any"
        )
        yield FieldError(field, _text(value), f"the notebook has no parameter {name}; {listed}")
        return
    accepted = known[name]
    match mark(value):
        case "value":
            value = value["value"]
        case None if not (isinstance(value, str) and "${{" in value):
            pass
        case _:
            return
    if accepted and not any(_is(value, kind) for kind in accepted):
        words = " or ".join(_WORDS[kind] for kind in accepted if kind is not int or float not in accepted)
        yield FieldError(field, _text(value), f"must be {words}, as the notebook's cell {TAG} has it")


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind) or (kind is int and isinstance(value, float) and value.is_integer())


def _names(tree: ast.Module) -> dict[str, tuple[type, ...]]:
    """Each name that is set outside of functions and classes -> what it accepts; nothing: anything."""
    found: dict[str, tuple[type, ...]] = {}
    for statement in _statements(tree.body):
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = tuple(dict.fromkeys(_annotated(statement.annotation)))
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name not in found:
                found[name] = _default(value)
            case _:
                for node in ast.walk(statement):
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                        found.setdefault(node.id, ())
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                continue
            case ast.If() | ast.Try() | ast.With():
                for name in ("body", "orelse", "finalbody"):
                    yield from _statements(getattr(statement, name, []))
            case _:
                yield statement


def _annotated(annotation: ast.expr) -> tuple[type, ...]:
    match annotation:
        case ast.Constant(value=str(text)):
            try:
                return _annotated(ast.parse(text, mode="eval").body)
            except SyntaxError:
                return ()
        case ast.Constant(value=None):
            return _ACCEPTED["None"]
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return _ACCEPTED.get(name.lower() if name in {"List", "Dict", "Tuple", "Set"} else name, ())
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _either([left, right])
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            match name:
                case "Optional":
                    return _either([inner, ast.Constant(None)])
                case "Union" if isinstance(inner, ast.Tuple):
                    return _either(inner.elts)
                case _:
                    return _annotated(ast.Name(name))
        case _:
            return ()


def _either(kinds: list[ast.expr]) -> tuple[type, ...]:
    found = [_annotated(kind) for kind in kinds]
    return tuple(kind for one in found for kind in one) if all(found) else ()


def _default(value: ast.expr) -> tuple[type, ...]:
    """What may stand for a default: numbers for numbers, whatever for None and what is computed."""
    if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.USub | ast.UAdd):
        value = value.operand
    match value:
        case ast.Constant(value=bool()):
            return _ACCEPTED["bool"]
        case ast.Constant(value=int() | float()):
            return _ACCEPTED["float"]
        case ast.Constant(value=str()) | ast.JoinedStr():
            return _ACCEPTED["str"]
        case ast.List() | ast.Tuple() | ast.Set() | ast.ListComp():
            return _ACCEPTED["list"]
        case ast.Dict() | ast.DictComp():
            return _ACCEPTED["dict"]
        case _:
            return ()


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
