"""What of a notebook determines its result: the kernel, and the code of its cells in a normal form.

Markdown, outputs, execution counts, ids, metadata, comments and formatting do not matter. Order, boundaries
and those tags that change what happens do. A notebook that cannot be normalised counts as it is
written: at worst it runs again.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.inputtransformer2 import TransformerManager

BEHAVIOUR = ("checkpoint", "injected-parameters", "parameters", "raises-exception")
"""Tags of cells that papermill, nbclient or Perijove's runner act upon."""
LARGEST = 256 << 20
"""Bytes of a notebook, outputs and all, that is read."""
_SKIPPED = "skip-execution"  # nbclient's
_LONGEST = 1 << 15
"""Characters of a cell that is still parsed; longer ones count as text."""
_MOST = 1 << 18
"""Characters of a notebook's code that are still parsed, at about 10 µs each."""
_ESCAPE = re.compile(r"^[ \t]*[%!?,;/]|=[ \t]*[%!]|\?[ \t]*$", re.MULTILINE)
"""What IPython may make a call of; it reads the whole cell again for each."""
_PYTHON_BODY = re.compile(r"\s*%%(?:time|capture)\b[^\n]*\n")
"""Cell magics that run the rest of the cell as Python."""
_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError, IndexError)
_SOURCE = "<perijove: cell>"
_MODES = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

# An invalid escape in somebody's cell is not the service's to complain of.
warnings.filterwarnings("ignore", module=re.escape(_SOURCE))


def code_of(notebook: bytes | Mapping[str, Any]) -> dict[str, Any]:
    """``{"kernel": NAME, "cells": [{"code": TEXT, "tags": [...]}]}``: a notebook's code in normal form.

    `notebook` is a file of nbformat 4 or its JSON; of an older format the whole file is the code. Cells
    that do nothing are left out. Raises ``ValueError`` when it is no notebook.
    """
    document = document_of(notebook)
    metadata = _object(document.get("metadata"))
    kernel = _object(metadata.get("kernelspec"))
    code: dict[str, Any] = {"kernel": str(kernel.get("name", "")), "cells": []}
    if document.get("nbformat") != 4 or not isinstance(document.get("cells"), list):
        code["cells"].append({"code": json.dumps(document, sort_keys=True)})
        return code
    python = _is_python(kernel, _object(metadata.get("language_info")))
    transformer = _transformer() if python else None
    read = 0
    for cell in document["cells"]:
        tags = _tags(cell)
        if _object(cell).get("cell_type") != "code" or _SKIPPED in tags:
            continue
        source = _source(cell)
        read += len(source)
        parsed = transformer is not None and read <= _MOST
        text = normalised(source, transformer) if parsed else _trimmed(source)
        kept = sorted(set(tags) & set(BEHAVIOUR))
        if text or kept:
            code["cells"].append({"code": text, **({"tags": kept} if kept else {})})
    return code


def python_cell(notebook: bytes | Mapping[str, Any], tag: str) -> ast.Module | None:
    """The first code cell that bears `tag`, parsed; an empty module when none does.

    None when its kernel is not Python's, or it cannot be parsed. Raises as :func:`code_of`.
    """
    document = document_of(notebook)
    metadata = _object(document.get("metadata"))
    if not _is_python(_object(metadata.get("kernelspec")), _object(metadata.get("language_info"))):
        return None
    cells = document.get("cells")
    if document.get("nbformat") != 4 or not isinstance(cells, list):
        return None
    sources = [_source(cell) for cell in cells if tag in _tags(cell) and cell.get("cell_type") == "code"]
    source = sources[0] if sources else ""
    if _too_long(source):
        return None
    try:
        return _tree(_transformer().transform_cell(source))
    except _UNREADABLE:
        return None


def normalised(source: str, transformer: TransformerManager | None = None) -> str:
    """A Python cell without comments and formatting; as it is where that is not possible.

    The form is that of :func:`ast.unparse`, magics as the calls that IPython makes of them. A ``;`` at
    the end, which keeps a value from being shown, stays.
    """
    transformer = transformer or _transformer()
    plain = _trimmed(source)
    if _too_long(source):
        return plain
    if match := _PYTHON_BODY.match(source):
        return match[0].strip() + "\n" + normalised(source[match.end() :], transformer)
    try:
        python = transformer.transform_cell(source)
        tree = _tree(python)
        text = ast.unparse(tree)
        # The way back shows that nothing was lost; before Python 3.12 some f-strings have no other form.
        faithful = ast.dump(_tree(text)) == ast.dump(tree)
        return text + (";" if text and _silent(python) else "") if faithful else plain
    except _UNREADABLE:
        return plain


def _too_long(source: str) -> bool:
    return len(source) > _LONGEST or len(source) * len(_ESCAPE.findall(source)) > _MOST


def _trimmed(source: str) -> str:
    return source.strip("\n").rstrip()


def _tree(python: str) -> ast.Module:
    # Answers too deep a nesting by RecursionError or MemoryError.
    tree = compile(python, _SOURCE, "exec", _MODES)
    assert isinstance(tree, ast.Module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.kind = None  # u"text" is "text"
    return tree


def _silent(python: str) -> bool:
    """Whether the last token is a semicolon, as IPython's ``DisplayHook.quiet`` looks for it."""
    last = ""
    for token in tokenize.generate_tokens(io.StringIO(python).readline):
        if token.type not in {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER}:
            last = token.string or last
    return last == ";"


def _transformer() -> TransformerManager:
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager()


def document_of(notebook: bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON of a notebook's file. ``ValueError`` when it is no object, or larger than :data:`LARGEST`."""
    if isinstance(notebook, Mapping):
        return notebook
    if len(notebook) > LARGEST:
        raise ValueError(f"must be a notebook of at most {LARGEST >> 20} MiB; clear its outputs")
    try:
        document = json.loads(notebook)
    except (ValueError, RecursionError):
        raise ValueError("must be a notebook (JSON)") from None
    if not isinstance(document, dict):
        raise ValueError("must be a notebook (a JSON object)")
    return document


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_python(kernel: Mapping[str, Any], language: Mapping[str, Any]) -> bool:
    named = kernel.get("language") or language.get("name") or kernel.get("name") or ""
    return bool(re.fullmatch(r"i?python\d*", str(named), re.IGNORECASE))


def _tags(cell: Any) -> list[str]:
    tags = _object(_object(cell).get("metadata")).get("tags")
    return [str(tag) for tag in tags] if isinstance(tags, list) else []


def _source(cell: Mapping[str, Any]) -> str:
    source = cell.get("source", "")
    text = "".join(str(line) for line in source) if isinstance(source, list) else str(source)
    return text.replace("\r\n", "\n")
