"""Texts that are made to hurt who reads them: too deep, too long, too many ways, no text at all."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from perijove.documents import given_values, parse
from perijove.headers import headers_of
from perijove.model import PerijoveError, parse_duration, parse_size
from perijove.model.places import Reference, filled, literal, output_places, templates
from perijove.model.trees import check_path
from perijove.model.validation import parse_spec, parse_specs, parse_workflow
from perijove.model.values import (
    ArrayRange,
    Dependency,
    GpuRequest,
    RetryCause,
    SecretPlace,
    SignalRequest,
    VolumeRequest,
)
from perijove.yaml12 import read
from perijove_hub.api.events import event_number
from perijove_hub.pages.queue import number
from perijove_hub.policy.document import load
from perijove_hub.simulation.swf import lines
from perijove_spawners.node.progress import latest
from perijove_spawners.node.recorded import parsed

pytestmark = pytest.mark.slow

PARSERS: dict[str, tuple[Callable[[str], Any], tuple[type[Exception], ...]]] = {
    "size": (parse_size, (ValueError,)),
    "duration": (parse_duration, (ValueError,)),
    "array": (lambda text: ArrayRange.model_validate(text), (ValueError,)),
    "dependency": (lambda text: Dependency.model_validate(text), (ValueError,)),
    "gpus": (lambda text: GpuRequest.model_validate(text), (ValueError,)),
    "retry": (lambda text: RetryCause.model_validate(text), (ValueError,)),
    "secret's place": (lambda text: SecretPlace.model_validate(text), (ValueError,)),
    "signal": (lambda text: SignalRequest.model_validate(text), (ValueError,)),
    "volume": (lambda text: VolumeRequest.model_validate(text), (ValueError,)),
    "reference": (Reference.parse, (ValueError,)),
    "templates": (lambda text: list(templates(text)), (ValueError,)),
    "path in a folder": (check_path, (ValueError,)),
    "output's place": (output_places, (ValueError,)),
    "spec": (lambda text: parse_spec(text.encode("utf-8", "surrogatepass")), (PerijoveError,)),
    "specs": (lambda text: parse_specs(text.encode("utf-8", "surrogatepass")), (PerijoveError,)),
    "workflow": (lambda text: parse_workflow(text.encode("utf-8", "surrogatepass")), (PerijoveError,)),
    "document": (parse, (PerijoveError,)),
    "document in JSON": (lambda text: parse(text, "flow.json"), (PerijoveError,)),
    "YAML": (read, (PerijoveError,)),
    "policy": (load, (PerijoveError, ValueError)),
    "header lines": (lambda text: headers_of(f"#PERIJOVE {text}", "x"), (PerijoveError,)),
    "parameter": (lambda text: given_values({}, [text]), (PerijoveError,)),
    "trace": (lambda text: list(lines(text.split("\n"), "x")), (PerijoveError,)),
    "recorded values": (lambda text: parsed(text.encode("utf-8", "surrogatepass")), ()),
    "progress": (lambda text: latest(text.encode("utf-8", "surrogatepass")), ()),
    "Last-Event-ID": (event_number, ()),
    "number in a link": (number, ()),
}
"""How each reads a text, and what it may raise."""

BITS = [
    "a",
    "0",
    "1",
    " ",
    "\t",
    "\n",
    ".",
    "-",
    "_",
    "/",
    ":",
    "%",
    "${{",
    "}}",
    "$${{ ",
    '"',
    "\\",
    "{",
    "[",
]
BITS += ["=", "x ", "1d ", "a.", "a:", "a/", "a=", "a,", "1 ", "\r\n", "\x1b[", "<", "&", ";", "@"]
HURTING = [
    "[" * 3_000,
    '{"a":' * 3_000,
    "- " * 2_000,
    "{" * 3_000,
    "9" * 5000,
    "-" + "9" * 400,
    "1e999",
    "NaN",
    '{"command": ["\\ud800"]}',
    '{"command": [1e400]}',
    "\ud800",
    "\x00",
    "\x1b]0;x\x07\x1b[2J",
    "&a [*a]",
    "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: [*c,*c]",
    "!!python/object/apply:os.system [id]",
    "<<: {a: 1}",
    "0o777",
    "1:30",
    "\u0663\u0664",
    "\u202ea",
    "..",
    "/../../etc/passwd",
    "%2e%2e%2f",
    "afterok:1" + "0" * 400,
    "1d" + " " * 100_000 + "x",
    "${{" + " " * 100_000 + "x",
    "$${{ " * 50_000,
    "'" * 1001,
]
texts = st.one_of(
    st.sampled_from(HURTING),
    st.text(max_size=60),
    st.builds(
        lambda bit, times, end: bit * times + end,
        st.sampled_from(BITS),
        st.integers(0, 400),
        st.text(max_size=3),
    ),
    st.lists(st.sampled_from([*BITS, "steps: ", "command: ", "jobs: ", "null", "true"]), max_size=30).map(
        "".join
    ),
)


@pytest.mark.parametrize("name", PARSERS)
def test_a_text_is_understood_or_refused(name: str) -> None:
    """With its declared error and no other, and in a time that pytest's own limit bounds."""
    read_text, declared = PARSERS[name]

    def tried(text: str) -> None:
        try:
            read_text(text)
        except declared:
            return
        except ValueError as error:
            raise AssertionError(f"{name}: {type(error).__name__}") from error

    for text in HURTING:
        tried(text)

    @hypothesis_settings(
        max_examples=15,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(texts)
    @example("")
    def any_text(text: str) -> None:
        tried(text)

    any_text()


@hypothesis_settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(st.one_of(texts, st.text(alphabet="$ {}ab", max_size=30)))
def test_a_literal_stays_what_it_was(text: str) -> None:
    assert filled(literal(text), lambda reference: "replaced") == text


KEPT_BUSY = """
import importlib, pkgutil, re, sys
import perijove, perijove_hub, perijove_spawners
import papermill
import perijove.papermill
found = {}
for package in (perijove, perijove_hub, perijove_spawners):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.endswith(("__main__", "jupyterhub_config")) or ".migrations." in module.name:
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            values = value.values() if isinstance(value, dict) else value
            for one in values if isinstance(value, (dict, tuple, list)) else [value]:
                if isinstance(one, re.Pattern):
                    found[one] = f"{module.name}.{name}"
bits, searched, size = eval(sys.argv[1]), eval(sys.argv[2]), 60_000
for pattern, name in found.items():
    for bit in bits:
        for beginning in ("", "a", "1d", "${{ "):
            text = beginning + bit * (size // len(bit)) + "\\0!"
            print(name, repr(bit), file=sys.stderr)
            given = text.encode() if isinstance(pattern.pattern, bytes) else text
            pattern.fullmatch(given)
            if name in searched:
                pattern.search(given)
print(len(found))
"""
"""All patterns of the three packages, each on texts of which they may try all ways to divide them."""
SEARCHED = {"perijove.model.places._TEMPLATE"}
"""Patterns that are looked for anywhere in a user's text; others must fit a whole one."""
CPU_SECONDS = 40
"""Of all together; they take two. One that tries all ways takes hours."""


@pytest.mark.timeout(400)
def test_no_pattern_can_be_kept_busy() -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))

    done = subprocess.run(
        [sys.executable, "-c", KEPT_BUSY, repr(BITS), repr(SEARCHED)],
        capture_output=True,
        text=True,
        preexec_fn=limited,
        check=False,
    )
    last = done.stderr.strip().rpartition("\n")[2]
    assert done.returncode == 0, f"kept busy, or failed: {last}\n{done.stderr[-1500:]}"
    assert int(done.stdout) > 30
    assert re.search(r"\w", last)
