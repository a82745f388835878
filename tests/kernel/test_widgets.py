"""The live view, in a real kernel as a front end drives it."""

from __future__ import annotations

import queue
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from tests.kernel.conftest import Service

pytestmark = pytest.mark.slow

WIDGET = "application/vnd.jupyter.widget-view+json"


class FrontEnd:
    """Sends cells and clicks, and keeps what the kernel shows."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self.client = client
        self.shown: list[dict[str, Any]] = []
        self.models: dict[str, dict[str, Any]] = {}
        self.errors: list[dict[str, Any]] = []
        self.text = ""

    def start(self, code: str) -> str:
        return str(self.client.execute(code))

    def run(self, code: str) -> FrontEnd:
        message = self.start(code)
        self.listen(lambda: self.idle == message)
        return self

    idle = ""

    def listen(self, until: Any, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not until():
            assert time.monotonic() < deadline, (self.text, self.errors)
            try:
                self._take(self.client.get_iopub_msg(timeout=0.2))
            except queue.Empty:
                continue

    def _take(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        if kind in {"display_data", "update_display_data"}:
            self.shown.append(message)
        elif kind == "comm_open":
            self.models[content["comm_id"]] = dict(content["data"]["state"])
        elif kind == "comm_msg":
            self.models.get(content["comm_id"], {}).update(content["data"].get("state", {}))
        elif kind == "error":
            self.errors.append(content)
        elif kind == "stream":
            self.text += content["text"]
        elif kind == "status" and content["execution_state"] == "idle":
            self.idle = message["parent_header"].get("msg_id", "")

    def button(self, text: str) -> str | None:
        return next((model for model, state in self.models.items() if state.get("description") == text), None)

    def values(self) -> str:
        return "\n".join(str(state.get("value", "")) for state in self.models.values())

    def click(self, model: str) -> None:
        control = self.client.session.msg("create_subshell_request", {})
        self.client.control_channel.send(control)
        subshell = self.client.get_control_msg(timeout=20)["content"]["subshell_id"]
        data = {"method": "custom", "content": {"event": "click"}}
        message = self.client.session.msg("comm_msg", {"comm_id": model, "data": data})
        message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)


@contextmanager
def front_end_in(home: Path, env: dict[str, str]) -> Iterator[FrontEnd]:
    """One with a kernel of its own, and the extension in it."""
    with tempfile.TemporaryDirectory() as sockets:
        manager = KernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
        manager.start_kernel(env=env | {"HOME": str(home)}, cwd=str(home))
        client = manager.blocking_client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=120)
            yield FrontEnd(client).run("%load_ext perijove")
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


@pytest.fixture
def front_end(service: Service, home: Path) -> Iterator[FrontEnd]:
    with front_end_in(home, service.env) as made:
        yield made


def test_a_job_is_watched_and_killed_by_its_button(front_end: FrontEnd) -> None:
    code = "import perijove, time\nfor i in range(600):\n    print('step', i)\n"
    code += "    perijove.progress(i / 600, f'at {i}')\n    time.sleep(0.1)"
    cell = front_end.start(f"%%submit --name '<i>long</i>\u202e'\n{code}")
    front_end.listen(lambda: "at 24" in front_end.values())
    assert ">running</span>" in front_end.values()
    assert "&lt;i&gt;long&lt;/i&gt;" in front_end.values()
    assert "<i>long" not in front_end.values()
    assert "\u202e" not in front_end.values(), "it would turn around what follows the name"
    assert 'role="log"' in front_end.values()
    front_end.listen(lambda: "memory" in front_end.values())
    first = front_end.shown[0]["content"]
    assert WIDGET in first["data"]
    assert "running" in first["data"]["text/plain"] + front_end.values()
    suspend = front_end.button("Suspend")
    kill = front_end.button("Kill")
    assert suspend
    assert kill
    front_end.click(suspend)
    front_end.listen(lambda: ">suspended</span>" in front_end.values())
    front_end.click(kill)
    front_end.listen(lambda: front_end.idle == cell)
    assert front_end.errors[0]["ename"] == "JobFailedError"
    last = front_end.shown[-1]["content"]
    assert WIDGET not in last["data"], "a saved notebook must not need the kernel that made it"
    assert "killed" in last["data"]["text/html"]
    assert last["metadata"]["perijove"]["job"].isdecimal()


def test_output_of_a_background_job_comes_into_its_own_cell(front_end: FrontEnd) -> None:
    cell = front_end.start(
        "%%submit --background\nimport time\ntime.sleep(1.5)\nprint('from', 'behind')\n6 * 7"
    )
    front_end.listen(lambda: front_end.idle == cell)
    front_end.run("2 + 2")
    box = front_end.shown[0]["content"]["data"][WIDGET]["model_id"]
    front_end.listen(lambda: "from behind" in str(front_end.shown))
    shown = [m for m in front_end.shown if "from behind" in m["content"]["data"].get("text/plain", "")]
    assert shown[0]["msg_type"] == "update_display_data"
    assert shown[0]["parent_header"]["msg_id"] == cell
    front_end.listen(lambda: "<pre>42</pre>" in str(front_end.shown))
    # What a page shows that was opened meanwhile: it has the widgets and misses the updates.
    front_end.listen(lambda: len(front_end.models[box]["children"]) == 1)
    (line,) = front_end.models[box]["children"]
    said = front_end.models[line.removeprefix("IPY_MODEL_")]["value"]
    assert "succeeded" in said
    assert re.search(r"%job \d+ -o", said)


def test_an_array_is_a_bar_with_counts(front_end: FrontEnd) -> None:
    cell = front_end.start("%%submit --shell --array 1:200%1 --cpus 0.5\nsleep 0.2")
    front_end.listen(lambda: re.search(r"\b[1-9]\d*/200 done, 1 running", front_end.values()))
    kill = front_end.button("Kill")
    assert kill
    front_end.click(kill)
    front_end.listen(lambda: front_end.idle == cell)
    assert "killed" in front_end.shown[-1]["content"]["data"]["text/html"]


def test_a_job_that_waits_says_why_and_until_when(front_end: FrontEnd) -> None:
    front_end.run("%%submit --shell --cpus 4 --background\nsleep 60")
    large = front_end.button("Kill")
    cell = front_end.start("%%submit --shell --cpus 4\ntrue")
    told = ("<li>with --cpus 1 it would start now</li>", "<li>starts between")
    front_end.listen(lambda: all(sentence in front_end.values() for sentence in told))
    assert large
    front_end.click(large)
    front_end.listen(lambda: front_end.idle == cell)
    # The large one, in the background, is shown as killed at about the same time.
    kept = [one["content"]["data"].get("text/html", "") for one in front_end.shown]
    assert any("succeeded" in text for text in kept)


def test_without_ipywidgets_there_is_html(front_end: FrontEnd) -> None:
    front_end.run("import sys; sys.modules['ipywidgets'] = None")
    front_end.run("%%submit --shell\necho plain")
    assert all(WIDGET not in message["content"]["data"] for message in front_end.shown)
    assert "succeeded" in front_end.shown[-1]["content"]["data"]["text/html"]
    assert "plain" in front_end.text
