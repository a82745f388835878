"""What a job is given and what is kept of it, with real processes under a real agent."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.spawners.real_node import RealNode

from perijove.model import Account, ReasonCode, State
from perijove_spawners.store import Entry


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[RealNode]:
    made = RealNode(tmp_path, "process", Account("me", os.getuid(), os.getgid(), str(tmp_path)))
    await made.open()
    yield made
    await made.close()


async def test_inputs_are_files_and_folders_that_cannot_be_written(node: RealNode) -> None:
    file = node.store.put([b"one\n"])
    folder = node.store.put_tree([Entry("a/b.txt", file.digest, file.size, True)])
    script = """
    cat "$INPUT_x_csv" "$INPUT_data/a/b.txt" "$PERIJOVE_JOB_DIR/input/x.csv"
    [ -x "$INPUT_data/a/b.txt" ] || exit 9
    if [ "$(id -u)" != 0 ] && echo more >> "$INPUT_x_csv"; then exit 8; fi
    """
    outcome = await node.run(
        script=script, inputs={"x.csv": file.digest, "data": folder.digest}, outputs={"said": "fd:1"}
    )
    assert (outcome.exit_code, node.text(outcome.outputs["said"])) == (0, "one\n" * 3)


async def test_every_kind_of_output_is_kept(node: RealNode) -> None:
    script = """
    cd "$PERIJOVE_JOB_DIR/output"
    echo file > table.csv
    mkdir -p plots/deep && echo 1 > plots/deep/1 && echo 2 > plots/.2 && chmod +x plots/.2
    for n in 10 9 1; do echo $n > part-$n.txt; done
    echo out; echo err >&2; echo five >&5
    echo '{"name": "loss", "value": 2}' > .recorded.jsonl
    echo '{"name": "loss", "value": {"b": [1.5, null], "a": "é"}}' >> .recorded.jsonl
    """
    places = {
        "table": "file:table.csv",
        "plots": "dir:plots",
        "parts": "glob:part-*.txt",
        "out": "fd:1",
        "err": "fd:2",
        "five": "fd:5",
        "loss": "record:loss",
    }
    outcome = await node.run(script=script, outputs=places)
    assert outcome.state is State.SUCCEEDED, outcome.message
    assert {name: node.text(outcome.outputs[name]) for name in ("table", "out", "err", "five", "loss")} == {
        "table": "file\n",
        "out": "out\n",
        "err": "err\n",
        "five": "five\n",
        "loss": '{"a":"é","b":[1.5,null]}',
    }
    plots = node.store.open_tree(outcome.outputs["plots"])
    assert [(one.path, one.size, one.executable) for one in plots.entries] == [
        (".2", 2, True),
        ("deep/1", 2, False),
    ]
    parts = node.store.open_tree(outcome.outputs["parts"])
    assert [one.path for one in parts.entries] == ["part-1.txt", "part-10.txt", "part-9.txt"]
    assert outcome.values == {"loss": {"a": "é", "b": [1.5, None]}}
    assert outcome.sizes == {
        "table": 5, "plots": 4, "parts": 7, "out": 4, "err": 4, "five": 5, "loss": 25,
    }  # fmt: skip


async def test_an_input_is_standard_input(node: RealNode) -> None:
    file = node.store.put([b"b\na\n"])
    outcome = await node.run(
        script="sort", inputs={"lines": file.digest}, stdin="lines", outputs={"o": "fd:1"}
    )
    assert node.text(outcome.outputs["o"]) == "a\nb\n"


async def test_what_was_promised_and_not_made_is_said(node: RealNode) -> None:
    places = {"a": "file:x/y", "b": "dir:plots", "c": "glob:*.png", "d": "record:loss"}
    outcome = await node.run(script="true", outputs=places)
    assert (outcome.reason, outcome.exit_code) == (ReasonCode.OUTPUT_MISSING, 0)
    assert outcome.message == (
        "output a was not written: there is no file output/x/y; "
        "output b was not made: there is no folder output/plots; "
        "output c matches nothing: there is no file output/*.png; "
        "output d was not recorded"
    )


async def test_texts_name_inputs_by_the_paths_that_the_job_sees(node: RealNode) -> None:
    digest = node.store.put([b"abc"]).digest
    script = 'cat "${{ input:x.csv }}" "$1" "$X"; echo \'${{ input:other }}\''
    outcome = await node.run(
        script=script,
        args=("${{ input:x.csv }}",),
        env={"X": "${{ input:x.csv }}"},
        inputs={"x.csv": digest},
        outputs={"said": "fd:1"},
    )
    assert node.text(outcome.outputs["said"]) == "abcabcabc${{ input:other }}\n"
