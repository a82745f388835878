"""Which of a session's names code may still read: what a checkpoint must hold for the cells after it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

_WORD = re.compile(r"[^\W\d]\w*")


def needed(cells: Iterable[str]) -> set[str]:
    """Names that `cells`, run in this order, may read before they bind them.

    Rather too many than too few: a branch that may not be taken binds nothing, and a cell that is no Python
    needs all its words. Names reached only by ``eval`` or ``globals()`` are not seen.
    """
    reader = _Reader()
    for source in cells:
        reader.cell(source)
    return reader.wanted


class _Reader:
    def __init__(self) -> None:
        self.bound: set[str] = set()
        self.wanted: set[str] = set()

    def cell(self, source: str) -> None:
        from IPython.core.inputtransformer2 import TransformerManager

        try:
            tree = ast.parse(TransformerManager().transform_cell(source))
        except (SyntaxError, ValueError):
            self.want(_WORD.findall(source))
            return
        for statement in tree.body:
            self.statement(statement)

    def want(self, names: Iterable[str]) -> None:
        self.wanted.update(set(names) - self.bound)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=targets, value=value):
                self.reads(value)
                for target in targets:
                    self.bind(target)
            case ast.AnnAssign(target=target, value=value, annotation=annotation):
                self.reads(annotation)
                if value is not None:
                    self.reads(value)
                    self.bind(target)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                self.bound.update((each.asname or each.name).partition(".")[0] for each in names)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                # Whatever it reads it may read whenever it is called; itself it may.
                self.bound.add(name)
                self.reads(node)
            case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
                for item in items:
                    self.reads(item.context_expr)
                    if item.optional_vars is not None:
                        self.bind(item.optional_vars)
                for inner in body:
                    self.statement(inner)
            case ast.For(target=target, iter=iterated, body=body, orelse=orelse):
                self.reads(iterated)
                before = set(self.bound)
                self.bind(target)
                for inner in body:
                    self.statement(inner)
                # It may have gone round not once.
                self.bound = before
                for inner in orelse:
                    self.reads(inner)
            case _:
                self.reads(node)

    def bind(self, target: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.bound.add(target.id)
        elif isinstance(target, ast.Tuple | ast.List):
            for part in target.elts:
                self.bind(part)
        elif isinstance(target, ast.Starred):
            self.bind(target.value)
        else:
            self.reads(target)

    def reads(self, node: ast.AST) -> None:
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Store):
                self.want([part.id])
            elif isinstance(part, ast.AugAssign) and isinstance(part.target, ast.Name):
                self.want([part.target.id])
            elif isinstance(part, ast.Global):
                self.want(part.names)
            elif isinstance(part, ast.Call) and _is_magic(part):
                text = " ".join(str(ast.literal_eval(each)) for each in part.args if _is_text(each))
                self.want(_WORD.findall(text))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_magic(call: ast.Call) -> bool:
    """Whether it is what IPython makes of ``%timeit f(x)``."""
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Call)
        and isinstance(function.value.func, ast.Name)
        and function.value.func.id == "get_ipython"
    )
