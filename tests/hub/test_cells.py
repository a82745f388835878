"""The normal form of a notebook's code under edits: all that change what runs are seen, and no others."""

from __future__ import annotations

import io
import json
import random
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest

from perijove_hub.workflows.cells import code_of, normalised

Notebook = dict[str, Any]

CELLS = [
    "# Setup\nimport math\nimport json, os\n%matplotlib inline\n%load_ext autoreload\n",
    "lr = 0.1  # learning rate\nepochs = 10\nname = 'digits'\nflags = [True, False, None]\n",
    '''def loss(weights, rate=lr, *args, scale=1.0, **kwargs):
    """Mean of squares."""
    total = 0
    for i, weight in enumerate(weights):
        if weight > 0 and not math.isnan(weight) or i == 3:
            total += weight ** 2 * scale
        elif weight <= -1:
            continue
        else:
            total -= rate
    return total / (len(weights) or 1)
''',
    "class Model:\n    depth: int = 3\n\n    def __init__(self, width):\n        self.width = width\n\n"
    "    @property\n    def size(self):\n        return self.depth * self.width - 1\n",
    'model = Model(width=4)\ntext = f"{model.size:>8} of {name!r}"\nraw = r"\\d+"\nlong = """one\n  two"""\n',
    "values = [x * 2 for x in range(epochs) if x % 2]\ntable = {'a': 1, \"b\": [2, 3], **{'c': 4}}\n",
    "!echo start\nfiles = !ls\n%timeit -n 1 loss([1, 2])\n",
    "try:\n    result = loss(values)\nexcept (ValueError, ZeroDivisionError) as error:\n    print(error)\n"
    "finally:\n    print('done', end='')\n",
    "%%bash\necho one   # comment\nls -l\n",
    "%%time\nx = 1 + 2\ny = x if x > 2 else -x\n",
    "await_me = lambda a, b=2: a @ b\nassert result >= 0, 'negative'\nresult\n",
    "math.sqrt(result);\n",
]


def notebook(cells: list[str] = CELLS) -> Notebook:
    """A notebook as JupyterLab writes it."""
    made: list[dict[str, Any]] = [
        {"cell_type": "markdown", "id": "m0", "metadata": {}, "source": ["# Title\n", "and text"]}
    ]
    for i, source in enumerate(cells):
        made.append(
            {
                "cell_type": "code",
                "execution_count": i + 1,
                "id": f"c{i}",
                "metadata": {"tags": ["parameters"]} if i == 1 else {},
                "outputs": [{"output_type": "stream", "name": "stdout", "text": [f"{i}\n"]}],
                "source": source.splitlines(keepends=True),
            }
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python", "version": "3.12.1"}}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def with_source(i: int, source: str) -> Notebook:
    """Cell `i` of two, so that hundreds of edits are read in seconds."""
    return notebook(["first = 1", source])


PLAIN = code_of(notebook())
PLAIN_CELLS = {json.dumps(code_of(with_source(i, source))) for i, source in enumerate(CELLS)}


def is_plain(edited: Notebook) -> bool:
    code = code_of(edited)
    return code == PLAIN or json.dumps(code) in PLAIN_CELLS


def code_cells(document: Notebook) -> list[dict[str, Any]]:
    return [cell for cell in document["cells"] if cell["cell_type"] == "code"]


def is_python(source: str) -> bool:
    return not re.search(r"^\s*[%!]|= *[!%]", source, re.MULTILINE)


PYTHON = [i for i, source in enumerate(CELLS) if is_python(source)]

# Edits that change nothing of what runs


def _of_the_document() -> Iterator[tuple[str, Notebook]]:
    for i, cell in enumerate(CELLS):
        for name, change in _CELL_CHANGES.items():
            document = notebook()
            change(code_cells(document)[i])
            yield f"{name}, cell {i}: {cell[:20]!r}", document
    for place in range(len(CELLS) + 1):
        for added in _ADDED:
            document = notebook()
            document["cells"].insert(place, deepcopy(added))
            yield f"{added['cell_type']} {added['source'][:12]!r} at {place}", document


def _outputs(cell: dict[str, Any]) -> None:
    cell["outputs"] = [{"output_type": "execute_result", "data": {"text/plain": "42"}, "metadata": {}}]


_CELL_CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "outputs": _outputs,
    "no outputs": lambda cell: cell["outputs"].clear(),
    "execution count": lambda cell: cell.update(execution_count=None),
    "id": lambda cell: cell.update(id="other"),
    "metadata": lambda cell: cell["metadata"].update(collapsed=True, jupyter={"source_hidden": True}),
    "other tags": lambda cell: cell["metadata"].setdefault("tags", []).append("hide-input"),
    "one text": lambda cell: cell.update(source="".join(cell["source"])),
    "line ends": lambda cell: cell.update(source="".join(cell["source"]).rstrip("\n").replace("\n", "\r\n")),
}
_ADDED: list[dict[str, Any]] = [
    {"cell_type": "markdown", "metadata": {}, "source": "more *text*"},
    {"cell_type": "raw", "metadata": {}, "source": "raw"},
    {"cell_type": "code", "metadata": {}, "source": "", "outputs": []},
    {"cell_type": "code", "metadata": {}, "source": "# only a comment\n\n", "outputs": []},
    {"cell_type": "code", "metadata": {"tags": ["skip-execution"]}, "source": "1 / 0", "outputs": []},
]


def _whole() -> Iterator[tuple[str, Notebook]]:
    document = notebook()
    document["metadata"]["language_info"]["version"] = "3.13.0"
    document["metadata"]["kernelspec"]["display_name"] = "Another"
    document["metadata"]["widgets"] = {"state": {}}
    document["nbformat_minor"] = 4
    yield "metadata of the notebook", document
    document = notebook()
    document["cells"] = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    yield "no text", document


def _tokens(source: str) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(source).readline))


def _replaced(source: str, token: tokenize.TokenInfo, text: str) -> str:
    lines = source.splitlines(keepends=True)
    (row, start), (end_row, end) = token.start, token.end
    before, after = lines[row - 1][:start], lines[end_row - 1][end:]
    return "".join([*lines[: row - 1], before + text + after, *lines[end_row:]])


def _of_the_source() -> Iterator[tuple[str, Notebook]]:
    for i in PYTHON:
        source = CELLS[i]
        changed = {
            "comment before": "# a comment: x = 1; %magic\n" + source,
            "comment after": source.rstrip("\n") + "  # noqa: E501",
            "blank lines": "\n\n" + source.replace("\n", "\n\n") if '"""' not in source else "\n\n" + source,
            "end of the cell": source + "\n   \n\n",
        }
        for token in _tokens(source):
            at = f"line {token.start[0]}:{token.start[1]}"
            if token.type == tokenize.OP and token.string in "+-*/%=<>,:" and len(token.string) == 1:
                changed[f"spaces around {token.string}, {at}"] = _replaced(
                    source, token, f"  {token.string} "
                )
            if token.type == tokenize.STRING and token.string[0] == "'" and '"' not in token.string:
                changed[f"quotes, {at}"] = _replaced(source, token, f'"{token.string[1:-1]}"')
                changed[f"prefix, {at}"] = _replaced(source, token, "u" + token.string)
            if token.type == tokenize.NUMBER and token.string.isdigit():
                changed[f"number, {at}"] = _replaced(source, token, f"0x{int(token.string):X}")
                changed[f"parentheses, {at}"] = _replaced(source, token, f"({token.string})")
        for name, text in changed.items():
            if 'f"' not in source or "spaces" not in name:
                yield f"{name}, cell {i}", with_source(i, text)


def _formatted() -> Iterator[tuple[str, Notebook]]:
    """What ruff makes of the cells, which formats as black does, in several styles."""
    for style in ([], ["line-length=30"], ["format.quote-style='single'"], ["indent-width=8"]):
        for i in PYTHON:
            options = [part for one in style for part in ("--config", one)]
            command = [sys.executable, "-m", "ruff", "format", "--isolated", *options, "-"]
            ran = subprocess.run(command, input=CELLS[i], capture_output=True, text=True, check=True)
            # ruff takes the semicolon away, which IPython reads
            text = ran.stdout.rstrip("\n") + ";" if CELLS[i].endswith(";\n") else ran.stdout
            if text != CELLS[i]:
                yield f"formatted {style}, cell {i}", with_source(i, text)


def _in_magics() -> Iterator[tuple[str, Notebook]]:
    yield "comment beside a magic", with_source(0, "# Other words\n" + CELLS[0])
    yield "%%time, formatted", with_source(9, "%%time\nx=1+2 # sum\n\ny = (x if x>2\n     else -x)\n")


COSMETIC = [*_of_the_document(), *_whole(), *_of_the_source(), *_formatted(), *_in_magics()]

# Edits that change what runs

_INSTEAD = {
    "+": "-", "-": "+", "*": "/", "/": "*", "**": "*", "%": "//", "@": "*", "+=": "-=", "-=": "+=",
    "==": "!=", ">": ">=", ">=": ">", "<": "<=", "<=": "<",
    "and": "or", "or": "and", "not": "not not", "True": "False", "False": "True", "None": "0",
    "continue": "break", "if": "if not", "elif": "elif not", "for": None, "in": None,
}  # fmt: skip


def _compiles(source: str) -> bool:
    try:
        compile(source, "<edit>", "exec")
    except SyntaxError:
        return False
    return True


def _semantic_source() -> Iterator[tuple[str, Notebook]]:
    for i in PYTHON:
        source = CELLS[i]
        for token in _tokens(source):
            text = token.string
            new = _INSTEAD.get(text)
            if token.type == tokenize.NUMBER:
                new = f"{text}1" if text.isdigit() else f"{text}5"
            elif token.type == tokenize.STRING:
                body = text.rstrip("'\"")
                new = body + "!" + text[len(body) :]
            elif token.type == tokenize.NAME and text not in _INSTEAD and not _keyword(text):
                new = text + "_"
            if new is not None and _compiles(changed := _replaced(source, token, new)):
                yield f"{text!r} -> {new!r}, line {token.start[0]}, cell {i}", with_source(i, changed)
        lines = source.splitlines(keepends=True)
        for j in range(len(lines)):
            rest = "".join([*lines[:j], *lines[j + 1 :]])
            if lines[j].strip() and not lines[j].lstrip().startswith("#") and _compiles(rest):
                yield f"without line {j + 1}, cell {i}", with_source(i, rest)


def _keyword(text: str) -> bool:
    import keyword

    return keyword.iskeyword(text)


def _semantic_magics() -> Iterator[tuple[str, Notebook]]:
    edits = [
        (0, "%matplotlib inline", "%matplotlib agg"),
        (0, "%load_ext autoreload\n", ""),
        (0, "import json, os", "import os, json"),
        (6, "!echo start", "!echo stop"),
        (6, "!echo start", "echo = start"),
        (6, "files = !ls", "files = !ls -a"),
        (6, "files = !ls", "files = %ls"),
        (6, "-n 1", "-n 2"),
        (8, "%%bash", "%%sh"),
        (8, "echo one ", "echo two "),
        (8, "ls -l", "ls  -l -a"),
        (9, "%%time", "%%capture"),
        (9, "1 + 2", "1 + 3"),
        (9, "%%time\n", ""),
        (4, "{model.size:>8}", "{model.size:>9}"),
        (4, "{name!r}", "{name}"),
        (4, "{name!r}", "{lr!r}"),
        (4, " of ", " off "),
        (4, 'r"\\d', 'r"\\w'),
        (4, "  two", "   two"),
        (10, "result\n", "result;\n"),
        (11, ";", ""),
    ]
    for i, old, new in edits:
        assert old in CELLS[i], (i, old)
        yield f"{old!r} -> {new!r}, cell {i}", with_source(i, CELLS[i].replace(old, new))


def _semantic_document() -> Iterator[tuple[str, Notebook]]:
    for i in range(len(CELLS)):
        document = notebook()
        document["cells"].remove(code_cells(document)[i])
        yield f"without cell {i}", document
        document = notebook()
        cell = code_cells(document)[i]
        cell["metadata"] = {"tags": ["checkpoint"]}
        yield f"tag checkpoint, cell {i}", document
        document = notebook()
        code_cells(document)[i]["cell_type"] = "markdown"
        yield f"cell {i} as text", document
        if i:
            swapped = [*CELLS[: i - 1], CELLS[i], CELLS[i - 1], *CELLS[i + 1 :]]
            yield f"cells {i - 1} and {i} swapped", notebook(swapped)
            merged = [*CELLS[: i - 1], CELLS[i - 1] + CELLS[i], *CELLS[i + 1 :]]
            yield f"cells {i - 1} and {i} in one", notebook(merged)
    for name in ("raises-exception", "skip-execution"):
        document = notebook()
        code_cells(document)[0]["metadata"] = {"tags": [name]}
        yield f"tag {name}", document
    document = notebook()
    code_cells(document)[1]["metadata"] = {}
    yield "parameters' tag gone", document
    document = notebook()
    document["metadata"]["kernelspec"]["name"] = "other"
    yield "kernel", document


SEMANTIC = [*_semantic_source(), *_semantic_magics(), *_semantic_document()]


def test_there_are_edits_enough() -> None:
    assert len(COSMETIC) >= 100
    assert len(SEMANTIC) >= 100


def test_cosmetic_edits_leave_the_code_as_it_is() -> None:
    assert [name for name, edited in COSMETIC if not is_plain(edited)] == []


def test_edits_of_the_code_are_seen() -> None:
    assert [name for name, edited in SEMANTIC if is_plain(edited)] == []


def test_no_two_edits_of_one_place_have_the_same_code() -> None:
    """Edits differ from each other too, unless their texts are the same."""
    seen: dict[str, str] = {}
    clashes = []
    for name, edited in _semantic_source():
        sources = json.dumps([cell["source"] for cell in code_cells(edited)])
        if seen.setdefault(json.dumps(code_of(edited)), sources) != sources:
            clashes.append(name)
    # taking "not" away where it was doubled, and the like, would be a fault of this test
    assert clashes == []


def test_cosmetic_edits_on_top_of_others_neither_hide_nor_add_anything() -> None:
    chance = random.Random(4)
    semantic = [(name, edited) for name, edited in _semantic_source()]
    for _ in range(200):
        name, edited = chance.choice(semantic)
        again = deepcopy(edited)
        for cell in code_cells(again):
            chance.choice(list(_CELL_CHANGES.values()))(cell)
        again["cells"].insert(chance.randrange(3), deepcopy(chance.choice(_ADDED)))
        assert code_of(again) == code_of(edited), name


def test_other_kernels_code_counts_as_it_is_written() -> None:
    def in_r(source: str) -> dict[str, Any]:
        document = notebook([source])
        document["metadata"] = {"kernelspec": {"name": "ir", "language": "R"}}
        return code_of(document)

    assert in_r("x <- 1\n\n") == in_r("x <- 1")
    assert in_r("x <- 1 # one") != in_r("x <- 1")
    assert in_r("x<-1") != in_r("x <- 1")


@pytest.mark.parametrize(
    "source",
    [
        "x = (",
        "-" * 5_000 + "x",
        "-" * 100_000 + "x",
        "a." * 10_000 + "b",
        "!ls\n" * 2_000,
        "(" * 500,
        "not " * 3_000 + "x",
        "lambda:" * 3_000 + "1",
        "x = '''\n%time\n",
        "\0",
        "'\ud800'",
        "%%nothing",
        "x = 1\n" * 100_000,
        "print 'of Python 2'",
        "    indented\n  less",
    ],
    ids=range(15),
)
def test_what_cannot_be_normalised_counts_as_it_is(source: str) -> None:
    assert normalised(source) == normalised(source + "\n")
    assert normalised(source) != normalised(source + "y")


@pytest.mark.parametrize("given", [b"", b"[]", b"\xff", b"12", b"[" * 100_000])
def test_what_is_no_notebook_is_refused(given: bytes) -> None:
    with pytest.raises(ValueError, match="must be a notebook"):
        code_of(given)


def test_strange_notebooks_are_read() -> None:
    for strange in (
        {"nbformat": 4, "cells": [None, 3, {"cell_type": "code"}, {"cell_type": "code", "source": 5}]},
        {"nbformat": 4, "metadata": [], "cells": [{"cell_type": "code", "metadata": {"tags": "x"}}]},
        {"nbformat": 3, "worksheets": [{"cells": []}]},
        {},
    ):
        assert code_of(strange) == code_of(json.dumps(strange).encode())


def test_older_notebooks_count_as_a_whole() -> None:
    old = {"nbformat": 3, "worksheets": [{"cells": [{"cell_type": "code", "input": "x = 1"}]}]}
    new = {"nbformat": 3, "worksheets": [{"cells": [{"cell_type": "code", "input": "x = 2"}]}]}
    assert code_of(old) != code_of(new)
