"""The engine calls of an attempt, as they are shown: no values of variables that may be secret, and bounded.

They lie in the attempt's folder, in the file ``engine`` (0600): a line of JSON for each.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from perijove.model import Attempt
from perijove_spawners.launcher import EngineCall

FILE = "engine"
LIMIT = 1 << 20
"""Bytes of such a file; calls that come later are not noted."""
BODY_LIMIT = 64 << 10
HIDDEN = "***"
_OWN = re.compile(
    r"PERIJOVE_(?:JOB_ID|ATTEMPT|JOB_DIR|IMAGE|NODE|CPUS|MEMORY|URL|RESOURCE_\w+"
    r"|TASK_(?:ID|FIRST|LAST|STEP))"
)


def shown(env: Mapping[str, str]) -> dict[str, str]:
    """`env` with the values hidden that the node did not set itself: tokens and passwords come that way."""
    return {name: value if _OWN.fullmatch(name) else HIDDEN for name, value in env.items()}


def line(engine: str, call: EngineCall) -> bytes:
    """`call` as a line; a body of more than :data:`BODY_LIMIT` bytes is left out and its size told."""
    body = json.dumps(call.body, ensure_ascii=False, default=str)
    fields = {
        "at": None if call.at is None else round(call.at, 3),
        "engine": engine,
        "what": call.what,
        "answer": call.answer,
        "ms": None if call.milliseconds is None else round(call.milliseconds, 1),
        **({"message": call.message} if call.message else {}),
        **({"left_out": len(body)} if len(body) > BODY_LIMIT else {"body": call.body}),
    }
    return json.dumps(fields, ensure_ascii=False, default=str).encode(errors="replace") + b"\n"


def notes(attempts: Path, engine: str) -> Callable[[Attempt, EngineCall], None]:
    """What appends calls of `engine` to the files in the folders of `attempts`, from any thread."""

    def note(attempt: Attempt, call: EngineCall) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        # The folder may have been purged, or the disk be full: neither is a reason to hinder the call.
        with contextlib.suppress(OSError):
            file = os.open(attempts / str(attempt) / FILE, flags, 0o600)
            try:
                if os.fstat(file).st_size < LIMIT:
                    os.write(file, line(engine, call))
            finally:
                os.close(file)

    return note
