"""A job's files and its seclusion in containers, on real engines under a real agent."""

from __future__ import annotations

import ast
import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.spawners.real_node import RealNode
from waiting import becomes

from perijove.model import Account, Endpoint, ReasonCode, State
from perijove_spawners.store import Entry

pytestmark = pytest.mark.engine

ALICE = Account("alice", 4242, 4242, "/home/alice", groups=(100,))

REACHES = """
import socket, sys
found = {"interfaces": sorted(name for _, name in socket.if_nameindex())}
def reaches(name, family, address):
    with socket.socket(family, socket.SOCK_STREAM) as there:
        there.settimeout(20)
        try:
            there.connect(address)
            found[name] = True
        except OSError:
            found[name] = False
host, container, port, abstract = sys.argv[1:]
reaches("host", socket.AF_INET, (host, int(port)))
reaches("container", socket.AF_INET, (container, 8888))
reaches("abstract", socket.AF_UNIX, "\\0" + abstract)
try:
    socket.getaddrinfo("localhost.localdomain.", 80)
    socket.getaddrinfo("example.org.", 80)
    found["names"] = True
except OSError:
    found["names"] = False
print(found)
"""

WRITABLE = """
import os, stat
for top, folders, files in os.walk("/"):
    folders[:] = [one for one in folders if os.path.join(top, one) not in {"/proc", "/sys"}]
    for path in [top, *(os.path.join(top, one) for one in files)]:
        if not os.path.islink(path) and os.access(path, os.W_OK) and not stat.S_ISCHR(os.stat(path).st_mode):
            print(path)
"""


@pytest.fixture(params=["docker", "podman"])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RealNode]:
    url = request.getfixturevalue(f"{request.param}_url")
    made = RealNode(tmp_path, request.param, ALICE, url=url)
    await made.open()
    yield made
    await made.close()


@contextmanager
def listening(family: int, address: object) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.bind(address)  # type: ignore[arg-type]
        made.listen()
        yield made


async def gateway(node: RealNode, image: str) -> str:
    """The host's address as containers see it (proc_pid_net(5), route)."""
    script = "while read -r _ to gateway _; do [ $to = 00000000 ] && echo $gateway; done < /proc/net/route"
    found = await node.run(script=script, image=image, network="bridge", outputs={"said": "fd:1"})
    number = int(node.text(found.outputs["said"]).split()[0], 16)
    return socket.inet_ntoa(number.to_bytes(4, "little"))


async def test_a_sealed_job_reaches_nobody(node: RealNode, test_image: str) -> None:
    serve = (
        "import socket as s; l = s.create_server(('', 8888)); print('ready', flush=True)\nwhile 1: l.accept()"
    )
    server = node.order("python3", "-c", serve, image=test_image, network="bridge", ports=(8888,))
    served = asyncio.ensure_future(node.agent.start([server]))

    async def ready() -> Endpoint | None:
        chunk = await node.agent.logs(server.attempt, "stdout", 0, 100)
        return await node.launcher.endpoint(server.attempt) if chunk and chunk.data else None

    container = (await becomes(ready, "the server")).ports[8888].rpartition(":")[0]
    host, name = await gateway(node, test_image), f"perijove-test-{id(node)}"
    with listening(socket.AF_INET, ("0.0.0.0", 0)) as tcp, listening(socket.AF_UNIX, f"\0{name}"):
        port = str(tcp.getsockname()[1])
        asked = ("python3", "-c", REACHES, host, container, port, name)
        said = {}
        for sealed in (True, False):
            outcome = await node.run(*asked, image=test_image, sealed=sealed, outputs={"said": "fd:1"})
            assert outcome.state is State.SUCCEEDED, outcome.message
            said[sealed] = ast.literal_eval(node.text(outcome.outputs["said"]))
    assert said[True] == {
        "interfaces": ["lo"], "host": False, "container": False, "abstract": False, "names": False,
    }  # fmt: skip
    # The same questions have other answers for a job that is not.
    assert said[False]["host"] and said[False]["container"] and len(said[False]["interfaces"]) > 1
    await node.agent.stop([server.attempt], 0)
    await served


async def test_a_sealed_job_writes_nowhere_but_where_it_may(node: RealNode, test_image: str) -> None:
    file = node.store.put([b"1,2\n"])
    script = f"{WRITABLE}\nprint(os.environ['HOME'], os.getcwd(), os.path.exists('/home/alice'))"
    outcome = await node.run(
        "python3", "-c", script,
        image=test_image, sealed=True, inputs={"table": file.digest}, outputs={"said": "fd:1"},
    )  # fmt: skip
    *paths, last = node.text(outcome.outputs["said"]).splitlines()
    own = ("/run/perijove", "/run/perijove/output")
    engines = ("/tmp", "/dev/shm", "/dev/mqueue", "/var/tmp")  # all of them in memory
    assert set(own) <= set(paths) <= {*own, *engines}
    assert last == "/run/perijove /run/perijove False"


async def test_the_tmp_of_a_sealed_job_is_as_large_as_it_may_be(node: RealNode, test_image: str) -> None:
    script = "head -c 40M /dev/zero > /tmp/x; ls -l /tmp/x | awk '{print $5}'; rm /tmp/x; touch /tmp/y"
    outcome = await node.run(
        script=script, image=test_image, sealed=True, memory=64 << 20, outputs={"said": "fd:1"}
    )
    assert (outcome.exit_code, node.text(outcome.outputs["said"])) == (0, f"{32 << 20}\n")


async def test_inputs_and_outputs_of_a_container(node: RealNode, test_image: str) -> None:
    file = node.store.put([b"b\na\n"])
    folder = node.store.put_tree([Entry("x/y.txt", file.digest, file.size, False)])
    script = """
    set -e
    echo "$INPUT_data"; cmp /in/data/x/y.txt "$PERIJOVE_JOB_DIR/input/data/x/y.txt"
    for path in /in/new /in/lines /in/data/x/y.txt "$PERIJOVE_JOB_DIR/input/new"; do
        if echo x 2>/dev/null >> "$path"; then echo "$path could be written"; exit 9; fi
    done
    sort >&7
    echo 1 > /data/table.csv; mkdir -p /data/sub; echo 2 > /data/sub/b.png; echo 3 > /out/a.txt
    echo 4 > "$PERIJOVE_JOB_DIR/output/kept"
    """
    outcome = await node.run(
        script=script,
        image=test_image,
        inputs={"lines": file.digest, "data": folder.digest},
        stdin="lines",
        outputs={
            "said": "fd:1", "seven": "fd:7", "table": "file:/data/table.csv", "plots": "glob:/data/**/*.png",
            "out": "dir:/out", "kept": "file:kept",
        },
    )  # fmt: skip
    assert outcome.state is State.SUCCEEDED, outcome.message
    said = {name: node.text(outcome.outputs[name]) for name in ("said", "seven", "table", "kept")}
    assert said == {"said": "/in/data\n", "seven": "a\nb\n", "table": "1\n", "kept": "4\n"}
    assert [one.path for one in node.store.open_tree(outcome.outputs["plots"]).entries] == ["sub/b.png"]
    assert [one.path for one in node.store.open_tree(outcome.outputs["out"]).entries] == ["a.txt"]
    assert outcome.image_digest is not None and outcome.image_digest.startswith("sha256:")


async def test_a_link_in_a_mounted_folder_leads_nowhere(node: RealNode, test_image: str) -> None:
    script = "ln -s /etc/shadow /data/x; mkdir /data/plots; ln -s /etc /data/plots/etc"
    outcome = await node.run(
        script=script, image=test_image, outputs={"x": "file:/data/x", "y": "dir:/data/plots"}
    )
    assert outcome.reason is ReasonCode.OUTPUT_MISSING and outcome.outputs == {}
    assert "output x cannot be opened safely" in outcome.message
    assert "output y holds etc, which cannot be opened safely" in outcome.message
