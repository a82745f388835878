"""What determines a step's result, and its digest: steps with equal keys have equal results.

The key is the SHA-256 of the ingredients in the form of RFC 8785. What a step may use (CPU, memory, time)
and how it waits (priority, retries, labels, node) is no ingredient.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, TypeAlias

import rfc8785

from perijove.model.places import MARKS
from perijove.model.workflow import Step

Ingredients: TypeAlias = dict[str, Any]
"""JSON; each part under its name, see :func:`ingredients`."""
VERSION = 1
"""Changes when equal ingredients no longer mean equal results; then nothing cached is found any more."""
_SAFE = 2**53 - 1
"""RFC 8785 knows numbers as IEEE 754 has them (ECMA 262, Number.MAX_SAFE_INTEGER)."""
_SAME_TEXT = (1e-4, 1e16)
"""Between these, Python and ECMA 262 write a number that is no integer alike."""
_ESCAPED = (*MARKS, "number")


def constant(
    step: Step,
    *,
    image_digest: str | None,
    platform: str,
    launcher: str = "",
    code: Mapping[str, Any] | None = None,
) -> Ingredients:
    """The ingredients that all instances of a mapped step have in common; give them to :func:`ingredients`.

    `image_digest` is that of the image, not its tag. Without one, what is installed on the hosts counts as
    the same everywhere: the key has the `launcher`'s name only. `platform` is ``linux/amd64``; `code`
    of a notebook is :func:`perijove_hub.workflows.cells.code_of`.
    """
    return {
        "version": VERSION,
        "kind": step.what,
        "image": image_digest or f"host:{launcher}",
        "platform": platform,
        "command": step.command or [],
        "script": step.script or "",
        "function": step.function or "",
        "code": dict(code or {}),
        "entrypoint": step.entrypoint or [],
        "cwd": step.cwd or "",
        "env": step.env,
        "stdin": step.stdin or "",
        "outputs": step.outputs,
        "sealed": step.sealed,
        "network": "none" if step.sealed else step.network or "",
        "user": step.user,
        "volumes": [] if step.sealed else sorted(str(volume) for volume in step.volumes),
        # Names: what they hold is told to nobody, and another value may be what makes it work at last.
        **({"secrets": {name: str(place) for name, place in step.secrets.items()}} if step.secrets else {}),
    }


def for_all(step: Step) -> bool:
    """Whether anybody with an equal step may take its result: it saw nothing but what its key tells."""
    return step.sealed and not step.secrets


def ingredients(
    fixed: Ingredients,
    *,
    inputs: Mapping[str, Any],
    args: list[Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    **filled: Any,
) -> Ingredients:
    """What determines one step's result.

    `fixed` is from :func:`constant`. `inputs` are digests or ``{"value": JSON}``, `args` and
    `parameters` JSON in which references are replaced by what they came to: values as ``{"value": JSON}``,
    pickles as ``{"pickle": DIGEST}``, files as ``{"path": DIGEST}``. `filled` are the texts of ``command``,
    ``script``, ``env`` without ``${{ }}``; paths in them must not tell one attempt from another.
    :func:`key_of` raises ``ValueError`` for what is no JSON: NaN, infinity, lone surrogates.
    """
    parts = {**fixed, **filled}
    parts["inputs"] = {name: exact(value) for name, value in inputs.items()}
    parts["args"] = [exact(arg) for arg in args or ()]
    parts["parameters"] = {name: exact(value) for name, value in (parameters or {}).items()}
    return parts


def exact(value: Any) -> Any:
    """`value` such that RFC 8785 keeps apart whatever Python does.

    For it 1 and 1.0 are the same number, and large integers are none; a notebook given one or the
    other may do something else. Such numbers become ``{"number": TEXT}``, and an object that looks like
    that is put into ``{"value": OBJECT}``.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        return value if -_SAFE <= value <= _SAFE else {"number": str(value)}
    if kind is float:
        return {"number": repr(value)} if value.is_integer() else value
    if isinstance(value, Mapping):
        inner = {name: exact(part) for name, part in value.items()}
        return {"value": inner} if len(inner) == 1 and next(iter(inner)) in _ESCAPED else inner
    if isinstance(value, list | tuple):
        return [exact(part) for part in value]
    return value


def key_of(parts: Ingredients) -> str:
    """``sha256:`` and the digest of their canonical form."""
    return _digest(canonical(parts))


def _digest(text: bytes) -> str:
    return "sha256:" + sha256(text).hexdigest()


class Keys:
    """Keys of a step's instances, the same as :func:`key_of` makes; what they have in common is encoded once.

    ``ValueError`` when the constant part is no JSON.
    """

    def __init__(self, fixed: Ingredients) -> None:
        self.fixed = fixed
        """From :func:`constant`."""
        self._texts = {name: canonical(part) for name, part in fixed.items()}
        names = sorted({*fixed, "inputs", "args", "parameters"})
        self._names = [(name, f'"{name}":'.encode()) for name in names]

    def key_of(self, parts: Ingredients) -> str:
        """Of what :func:`ingredients` made of ``fixed``."""
        fixed, texts, written = self.fixed, self._texts, []
        for name, field in self._names:
            part = parts[name]
            if part is fixed.get(name):
                text = texts[name]
            elif not part and type(part) in _EMPTY:
                text = _EMPTY[type(part)]
            else:
                text = canonical(part)
            written.append(field + text)
        return _digest(b"{" + b",".join(written) + b"}")


_EMPTY: dict[type, bytes] = {dict: b"{}", list: b"[]", str: b'""'}


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode


def canonical(value: Any) -> bytes:
    """`value` as RFC 8785 has it. ``ValueError`` when it is no JSON.

    Most data Python's own encoder, written in C, writes in just that form, in a fifth of the time; the
    library takes what differs: numbers with exponents, names whose order in UTF-16 is another.
    """
    if _plain(value):
        try:
            return _encode(value).encode()
        except UnicodeEncodeError:
            raise ValueError("must be text without lone surrogates") from None
    return rfc8785.dumps(value)


def _plain(value: Any) -> bool:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is dict:
        for name, part in value.items():
            if type(name) is not str or not name.isascii():
                return False
            if type(part) is not str and not _plain(part):
                return False
        return True
    if kind is list:
        return all(type(part) is str or _plain(part) for part in value)
    if kind is int:
        return bool(-_SAFE <= value <= _SAFE)
    if kind is float:
        return not value.is_integer() and _SAME_TEXT[0] <= abs(value) < _SAME_TEXT[1]
    return False
