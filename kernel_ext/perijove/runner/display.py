"""``display.jsonl``: one JSON object a line, an output as nbformat 4 has it, or progress."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from perijove.reporting import fail

LINE_BYTES = 16 << 20
"""An output larger than this is replaced by a note; who watches would wait for it in one piece."""
FLUSH_SECONDS = 0.1
FLUSH_CHARACTERS = 32 * 1024

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class DisplayLog:
    """Appends to the job's display log. Lines are whole: each is one ``write`` to a file opened for append.

    Before anything else is written, text collected by the streams is (see :class:`TextStream`), so that
    the order is that of the program.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "display.jsonl"
        self._descriptor: int | None = None
        self.lock = threading.RLock()
        self._streams: list[TextStream] = []

    def add(self, stream: TextStream) -> None:
        """Let `stream` be written out before anything else is."""
        self._streams.append(stream)

    def output(self, output: dict[str, Any]) -> None:
        """Append an output (nbformat 4), ``update_display_data`` or ``clear_output``."""
        with self.lock:
            self.flush()
            self.write(output)

    def progress(self, fraction: float, text: str = "", **more: Any) -> None:
        """Append how far the job is; `fraction` is brought to lie between 0 and 1."""
        number = float(fraction)
        number = min(1.0, max(0.0, number)) if math.isfinite(number) else 0.0
        self.output({"progress": number, "text": str(text), **more})

    def failure(self, name: str, value: str, traceback: Sequence[str]) -> None:
        """Append an error with its traceback, which also goes to the real standard error without colours."""
        self.output({"output_type": "error", "ename": name, "evalue": value, "traceback": list(traceback)})
        plain = _COLOURS.sub("", "\n".join(traceback)) + "\n"
        os.write(2, plain.encode("utf-8", "backslashreplace"))
        fail(f"{name}: {value}")

    def flush(self) -> None:
        """Write out what the streams have gathered."""
        for stream in self._streams:
            stream.flush()

    def write(self, content: dict[str, Any]) -> None:
        """Append one line as it is."""
        line = _line(content)
        if len(line) > LINE_BYTES:
            line = _line(_note(content, len(line)))
        with self.lock:
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o600)
            while line:
                line = line[os.write(self._descriptor, line) :]


def _line(content: dict[str, Any]) -> bytes:
    # "\ud800" in a print is legal Python and no legal UTF-8; JSON escapes carry it.
    return json.dumps(content, ensure_ascii=True, default=str).encode() + b"\n"


def _note(content: dict[str, Any], size: int) -> dict[str, Any]:
    kind = content.get("output_type", "output")
    text = (
        f"[an output of {size >> 20} MiB ({kind}) was not kept; the limit is {LINE_BYTES >> 20} MiB:"
        " write it to a file instead]\n"
    )
    return {"output_type": "stream", "name": "stderr", "text": text}


class StandIn:
    """What programs expect of ``sys.stdout`` and ``sys.stderr`` beside ``write`` and ``flush``."""

    encoding = "utf-8"
    closed = False

    def __init__(self, real: TextIO) -> None:
        self._real = real

    def write(self, text: str) -> int:
        """Take `text`; how many characters."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._take(text)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._real.fileno()

    @property
    def buffer(self) -> Any:
        return self._real.buffer

    def _take(self, text: str) -> None:
        raise NotImplementedError


class TextStream(StandIn):
    """Stands in for ``sys.stdout`` or ``sys.stderr``: the real one and the display log both get the text.

    Text is gathered for up to FLUSH_SECONDS, so that ten thousand prints a second are a few lines here.
    """

    errors = "surrogateescape"

    def __init__(self, name: str, real: TextIO, log: DisplayLog) -> None:
        super().__init__(real)
        self.name = name
        self._log = log
        self._parts: list[str] = []
        self._size = 0
        self._lock = log.lock
        log.add(self)
        threading.Thread(target=self._flush_for_ever, name=f"display-{name}", daemon=True).start()

    def _take(self, text: str) -> None:
        if text:
            with self._lock:
                self._parts.append(text)
                self._size += len(text)
                if self._size >= FLUSH_CHARACTERS:
                    self.flush()

    def flush(self) -> None:
        with self._lock:
            if not self._parts:
                return
            text, self._parts, self._size = "".join(self._parts), [], 0
            self._log.write({"output_type": "stream", "name": self.name, "text": text})
            real = getattr(self._real, "buffer", None)
            if real is None:
                self._real.write(text)
            else:
                real.write(text.encode("utf-8", "backslashreplace"))
            self._real.flush()

    def _flush_for_ever(self) -> None:
        tick = threading.Event()
        while not tick.wait(FLUSH_SECONDS):
            self.flush()


@contextmanager
def captured(log: DisplayLog) -> Iterator[None]:
    """Within it, what Python prints goes to `log` too."""
    real = sys.stdout, sys.stderr
    sys.stdout = TextStream("stdout", real[0], log)
    sys.stderr = TextStream("stderr", real[1], log)
    try:
        yield
    finally:
        log.flush()
        sys.stdout, sys.stderr = real
