"""A job's rich output, shown where it was submitted or replayed later.

The job wrote lines of ``display.jsonl``; here they become the calls that a cell running in this kernel would
have made, so that front ends and saved notebooks cannot tell the difference.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perijove.sync import Job

Line = dict[str, Any]
IMAGES = ("image/png", "image/jpeg", "image/gif")


class LineReader:
    """Chunks of text -> JSON lines; what is no line of ours is passed over."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, text: str) -> Iterator[Line]:
        """The lines that `text` completes."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            try:
                content = json.loads(line)
            except ValueError:
                continue
            if isinstance(content, dict):
                yield content


class CellOutput:
    """Shows lines as ordinary outputs of the cell that runs now.

    `after_clear` is called when the job cleared its output, and with it whatever else the cell showed.
    """

    def __init__(self, job_label: str, after_clear: Callable[[], None] = lambda: None) -> None:
        self._label = job_label
        self._after_clear = after_clear
        self.failed = False
        """Whether the job showed an error; :class:`~perijove.handle.JobFailedError` carries it."""

    def show(self, line: Line) -> None:
        """Show one output."""
        kind = line.get("output_type")
        if kind == "stream":
            stream = sys.stderr if line.get("name") == "stderr" else sys.stdout
            stream.write(text_of(line.get("text", "")))
            stream.flush()
        elif kind in {"display_data", "execute_result", "update_display_data"}:
            self._publish(line, update=kind == "update_display_data")
        elif kind == "clear_output":
            self._clear(bool(line.get("wait")))
        elif kind == "error":
            self.failed = True

    def _publish(self, line: Line, *, update: bool) -> None:
        from IPython.display import publish_display_data

        transient = dict(line.get("transient") or {})
        if "display_id" in transient:
            # Ids are the job's own: two jobs, or a job and this kernel, may use the same.
            transient["display_id"] = f"perijove-{self._label}-{transient['display_id']}"
        # The display id alone makes an update find its output.
        publish_display_data(
            line.get("data") or {}, line.get("metadata") or {}, transient=transient or None, update=update
        )

    def _clear(self, wait: bool) -> None:
        from IPython.display import clear_output

        clear_output(wait)
        self._after_clear()


class OutputList:
    """Keeps outputs as a notebook would, to be shown together in one display that is updated."""

    def __init__(self) -> None:
        self.outputs: list[Line] = []
        self._clear_first = False

    def show(self, line: Line) -> None:
        """Take one output in."""
        kind = line.get("output_type")
        if kind == "clear_output":
            if line.get("wait"):
                self._clear_first = True
            else:
                self.outputs.clear()
            return
        if kind == "update_display_data":
            self._update(line)
            return
        if kind not in {"stream", "display_data", "execute_result", "error"}:
            return
        if self._clear_first:
            self.outputs.clear()
            self._clear_first = False
        last = self.outputs[-1] if self.outputs else {}
        if kind == "stream" and last.get("output_type") == "stream" and last.get("name") == line.get("name"):
            joined = carriage_returns(text_of(last["text"]) + text_of(line["text"]))
            self.outputs[-1] = {**last, "text": joined}
        else:
            self.outputs.append(line)

    def _update(self, line: Line) -> None:
        wanted = (line.get("transient") or {}).get("display_id")
        for index, output in enumerate(self.outputs):
            if wanted and (output.get("transient") or {}).get("display_id") == wanted:
                self.outputs[index] = {**output, "data": line["data"], "metadata": line.get("metadata") or {}}

    def html(self) -> str:
        """All of it as HTML; images are part of it."""
        return "".join(_html(output) for output in self.outputs)

    def text(self) -> str:
        """All of it as text."""
        return "".join(_text(output) for output in self.outputs)


def _html(output: Line) -> str:
    kind = output["output_type"]
    if kind == "stream":
        return f"<pre>{escape(text_of(output['text']))}</pre>"
    if kind == "error":
        return f"<pre>{escape(plain(chr(10).join(output.get('traceback') or [])))}</pre>"
    data = output.get("data") or {}
    for mime in ("text/html", "image/svg+xml"):
        if mime in data:
            return f"<div>{text_of(data[mime])}</div>"
    for mime in IMAGES:
        if mime in data:
            source = f"data:{mime};base64,{escape(text_of(data[mime]).strip())}"
            return f'<img alt="output of the job" src="{source}">'
    return f"<pre>{escape(text_of(data.get('text/plain', '')))}</pre>"


def _text(output: Line) -> str:
    kind = output["output_type"]
    if kind == "stream":
        return text_of(output["text"])
    if kind == "error":
        return plain("\n".join(output.get("traceback") or [])) + "\n"
    return text_of((output.get("data") or {}).get("text/plain", "")) + "\n"


def text_of(value: Any) -> str:
    """In nbformat text is one string or a list of lines."""
    return "".join(value) if isinstance(value, list) else str(value)


def plain(text: str) -> str:
    """`text` without colours."""
    import re

    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


def carriage_returns(text: str) -> str:
    """`text` as a terminal leaves it: a progress bar that rewrites its line is one line."""
    if "\r" not in text:
        return text
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def replay(job: Job) -> None:
    """Show all that `job` has put out so far, as outputs of the cell that runs now."""
    output = CellOutput(job.label)
    for line in lines_of(job):
        output.show(line)
        if line.get("output_type") == "error":
            sys.stderr.write("\n".join(line.get("traceback") or []) + "\n")


def lines_of(job: Job) -> list[Line]:
    """The outputs of `job` so far: its rich ones, or its log where it has none."""
    from perijove.model.errors import NotFoundError

    try:
        rich = list(LineReader().feed(job.logs("display"))) if job.rich else []
    except NotFoundError:
        rich = []
    if rich:
        return rich
    streams = [("stdout", job.logs("stdout")), ("stderr", job.logs("stderr"))]
    return [{"output_type": "stream", "name": name, "text": text} for name, text in streams if text]
