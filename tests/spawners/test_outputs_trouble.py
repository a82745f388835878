"""Outputs of hostile jobs; stores full, damaged or away; agents killed and jobs stopped meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from bucket import S3, s3_server
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import absent
from tests.spawners.real_node import RealNode
from waiting import until

from perijove.model import Account, ReasonCode, State
from perijove_spawners import failpoints
from perijove_spawners.node import jobfiles
from perijove_spawners.node.jobfiles import ForeignFileError
from perijove_spawners.node.recorded import Recorded, canonical, parsed
from perijove_spawners.places import Place, folders
from perijove_spawners.store import Store

ME = Account("me", os.getuid(), os.getgid(), "/")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[RealNode]:
    made = RealNode(tmp_path, "process", ME)
    await made.open()
    yield made
    await made.close()


# Hostile jobs


def test_a_walk_follows_and_takes_nothing_foreign(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    top = tmp_path / "top"
    (top / "sub").mkdir(parents=True)
    (top / "sub/good").write_text("fine")
    assert [path for path, _ in jobfiles.tree(top, ME)] == ["sub/good"]
    for make in (
        lambda path: path.symlink_to(tmp_path / "secret"),
        lambda path: path.symlink_to(tmp_path, target_is_directory=True),
        os.mkfifo,
        lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
        lambda path: (top / os.fsdecode(b"\xff")).touch(),
    ):
        make(top / "odd")
        with pytest.raises(ForeignFileError, match=r"holds odd, which|whose name is not UTF-8"):
            list(jobfiles.tree(top, ME))
        # What does not match is nobody's business.
        assert [path for path, _ in jobfiles.matching(top, ME, (), ("sub", "*"))] == ["sub/good"]
        with contextlib.suppress(FileNotFoundError):
            (top / "odd").unlink()
    with pytest.raises(ForeignFileError, match="not a regular file of the job's account"):
        list(jobfiles.tree(top / "sub", Account("other", ME.uid + 1, 0, "/")))
    with pytest.raises(ForeignFileError):
        list(jobfiles.tree(tmp_path, ME, "top", "sub", "good"))


def test_a_folder_without_end_is_given_up(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(jobfiles.DEEPEST + 1):
        deep /= "d"
    deep.mkdir(parents=True)
    (deep / "x").touch()
    with pytest.raises(ForeignFileError, match="more than 64 levels"):
        list(jobfiles.tree(tmp_path, ME))
    for pattern in (("**", "**", "**", "y"), ("**",)):
        with pytest.raises(ForeignFileError, match="more than 64 levels"):
            list(jobfiles.matching(tmp_path, ME, (), pattern))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.png", ["a.png"]),
        ("*", ["a.png", "b.txt"]),
        (".*", [".h.png"]),
        ("[ab].*", ["a.png", "b.txt"]),
        ("**/*.png", ["a.png", "s/c.png", "s/t/d.png"]),
        ("**", ["a.png", "b.txt", "s/c.png", "s/t/d.png"]),
        ("s/**/d.png", ["s/t/d.png"]),
        ("*/*.png", ["s/c.png"]),
        ("**/**/d.png", ["s/t/d.png"]),
        ("s", []),
        ("?", []),
    ],
)
def test_a_pattern_means_what_it_does_in_a_shell(pattern: str, found: list[str], tmp_path: Path) -> None:
    for name in ("a.png", "b.txt", ".h.png", "s/c.png", "s/t/d.png", ".hidden/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    place = Place.parse(f"glob:{pattern}")
    rest = place.parts[len(place.fixed) :]
    prefix = "".join(f"{part}/" for part in place.fixed)
    assert sorted(prefix + path for path, _ in jobfiles.matching(tmp_path, ME, place.fixed, rest)) == found


def test_folders_of_absolute_places() -> None:
    places = ["file:/d/a.csv", "dir:/d/b/c", "glob:/x/y/*/z.png", "dir:/out", "file:relative", "fd:5"]
    assert folders(places) == ("/d", "/out", "/x/y")
    assert folders(["file:/d/a", "file:/d/e/f", "file:/data/x"]) == ("/d", "/data")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False)
    .filter(lambda number: abs(number) != float("inf"))
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("aé"), inner, max_size=2),
    max_leaves=8,
)  # fmt: skip


@given(value=JSON, before=JSON, noise=st.binary(max_size=200).filter(lambda data: b"\n" not in data))
def test_recorded_values_are_read_back_and_the_last_counts(
    value: object, before: object, noise: bytes
) -> None:
    lines = [b'{"name": "x", "value": %s}' % canonical(one) for one in (before, value)]
    assert parsed(b"\n".join([*lines, noise])).values == {"x": value}


@pytest.mark.parametrize(
    "line",
    [
        b'{"name": "x", "value": NaN}',
        b'{"name": "x", "value": 1e999}',
        b'{"name": "x", "value": 9223372036854775808}',
        b'{"name": "x", "value": "\\ud800"}',
        b'{"name": "x", "value": "\\u0000"}',
        b'{"name": "x", "value": {"\\ud800": 1}}',
        b'{"name": "x", "value": ' + b"[" * 60 + b"]" * 60 + b"}",
        b'{"name": "x", "value": ' + b"[" * 100_000,
        b'{"name": "../x", "value": 1}',
        b'{"name": 1, "value": 1}',
        b'{"name": "x"}',
        b"[1]",
        b"\xff",
    ],
)
def test_a_value_that_cannot_travel_is_passed_over(line: bytes) -> None:
    assert parsed(b'{"name": "y", "value": 1}\n' + line + b"\n") == Recorded({"y": 1})


def test_the_job_says_itself_why_it_failed() -> None:
    said = parsed(b'{"failure": "cell 7:\\n \\u001b[31mno\\u0000"}\n{"failure": 3}\n')
    assert said.failure == "cell 7: [31mno"
    assert len(parsed(b'{"failure": "' + b"x" * 9000 + b'"}').failure) == 500


async def test_a_sentence_of_the_job_is_its_message(node: RealNode) -> None:
    script = """
    echo '{"failure": "cell 7: no such column"}' > "$PERIJOVE_JOB_DIR/output/.recorded.jsonl"
    exit 3
    """
    outcome = await node.run(script=script)
    assert (outcome.exit_code, outcome.message) == (3, "cell 7: no such column")


# Stores


async def test_an_input_that_is_damaged_is_said(node: RealNode) -> None:
    digest = node.store.put([b"data"]).digest
    kept = node.directory / "store/sha256" / digest[7:9] / digest[9:]
    kept.chmod(0o600)
    kept.write_bytes(b"dato")
    outcome = await node.run(script="true", inputs={"x": digest})
    assert (outcome.reason, outcome.transient) == (ReasonCode.LAUNCH_FAILED, False)
    assert outcome.message == f"input x could not be staged: {digest} is damaged in the store"


@pytest.fixture
def small_store(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        absent("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_full_store_is_said_and_what_fits_is_kept(node: RealNode, small_store: Path) -> None:
    await node.agent.close()
    node.store = Store(small_store / "store")
    await node.open()
    script = 'cd "$PERIJOVE_JOB_DIR/output"; echo 1 > small; head -c 4M /dev/zero > large'
    outcome = await node.run(script=script, outputs={"large": "file:large", "small": "file:small"})
    assert (outcome.reason, outcome.exit_code) == (ReasonCode.OUTPUT_MISSING, 0)
    assert (
        outcome.message.startswith("output large could not be kept: the store") and "full" in outcome.message
    )
    assert set(outcome.outputs) == {"small"}
    assert [blob.digest for blob in node.store.all()] == [outcome.outputs["small"]]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3") / "buckets") as server:
        yield server


class Road:
    """A port that leads to the server, once it is open."""

    def __init__(self, endpoint: str) -> None:
        self._host, _, port = endpoint.removeprefix("http://").partition(":")
        self._port = int(port)
        # Bound and not listening: nobody else gets it, and connections are refused.
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    async def open(self) -> None:
        await asyncio.start_server(self._pass, sock=self._socket)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._port)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(copy(reader, back), copy(there, writer))


async def away(node: RealNode, s3: S3) -> Road:
    """Another agent, whose bucket cannot be reached yet."""
    road = Road(s3.endpoint)
    options = {**s3.options, "endpoint_url": road.endpoint, "config_kwargs": {"retries": {"max_attempts": 0}}}
    await node.agent.close()
    node.store = Store(f"s3://{s3.bucket()}/perijove", **options)
    await node.open()
    return road


async def test_a_bucket_that_comes_back_gets_the_outputs(
    node: RealNode, s3: S3, caplog: pytest.LogCaptureFixture
) -> None:
    road = await away(node, s3)
    order = node.order(script='echo 1 > "$PERIJOVE_JOB_DIR/output/x"', outputs={"x": "file:x", "log": "fd:1"})
    sent = asyncio.ensure_future(node.agent.start([order]))
    await until(
        lambda: "output x: the store" in caplog.text and "trying again" in caplog.text, "a failure", 60
    )
    await road.open()
    await sent
    outcome = await node.outcome(order)
    assert outcome.state is State.SUCCEEDED, outcome.message
    assert await asyncio.to_thread(node.text, outcome.outputs["x"]) == "1\n"


async def test_a_job_is_stopped_while_its_bucket_is_away(
    node: RealNode, s3: S3, caplog: pytest.LogCaptureFixture
) -> None:
    await away(node, s3)
    order = node.order(script="true", outputs={"log": "fd:1"})
    sent = asyncio.ensure_future(node.agent.start([order]))
    await until(lambda: "output log: the store" in caplog.text, "a failure", 60)
    await node.agent.stop([order.attempt])
    await sent
    outcome = await node.outcome(order)
    assert (outcome.reason, outcome.exit_code) == (ReasonCode.KILLED_BY_USER, 0)
    assert outcome.message == "stopped while its outputs were being kept"


# Agents that are killed

AGENT = """
import asyncio, pickle, sys
from dataclasses import replace
from pathlib import Path
from tests.spawners.real_node import RealNode
from perijove.model import Account

async def main():
    directory, account, order = pickle.loads(bytes.fromhex(sys.argv[1]))
    node = RealNode(directory, "process", account)
    await node.open()
    await node.agent.start([replace(order, incarnation=node.agent.incarnation)])

asyncio.run(main())
"""


@pytest.mark.parametrize("place", failpoints.OUTPUTS)
async def test_outputs_are_taken_again_after_the_agents_death(node: RealNode, place: str) -> None:

    script = """
    cd "$PERIJOVE_JOB_DIR/output"; mkdir plots; echo ran >> "$PERIJOVE_JOB_DIR/runs"
    head -c 3M /dev/zero | tr '\\0' x > large; echo 1 > plots/1; echo 2 > plots/2
    """
    order = node.order(script=script, outputs={"large": "file:large", "plots": "dir:plots", "log": "fd:1"})
    await node.agent.close()
    wire = pickle.dumps((node.directory, node.account, order)).hex()
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "support")]
    env = {
        **os.environ,
        "PERIJOVE_FAILPOINTS": f"{place}={node.directory}/died",
        "PYTHONPATH": os.pathsep.join(paths),
    }
    died = await asyncio.create_subprocess_exec(sys.executable, "-c", AGENT, wire, env=env)
    assert await died.wait() == -signal.SIGKILL
    # Whatever is to be seen is whole.
    for blob in node.store.all():
        node.store.check(blob.digest)
    await node.open()
    await node.agent.start([order])
    outcome = await node.outcome(order)
    assert outcome.state is State.SUCCEEDED, outcome.message
    assert outcome.sizes == {"large": 3 << 20, "plots": 4, "log": 0}
    for digest in outcome.outputs.values():
        node.store.check(digest)
    attempt = node.directory / "node/attempts" / str(order.attempt)
    assert await asyncio.to_thread((attempt / "job/runs").read_text) == "ran\n"
