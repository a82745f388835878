"""A run is packed on one installation and run again on another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import Installation, installed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

FLOW = """
name: sums
parameters: {factor: 2}
defaults: {launcher: process, cpus: 0.1, memory: 200M, volumes: []}
steps:
  count:
    command: [sh, -c, 'wc -l < "$INPUT_data" > "$PERIJOVE_JOB_DIR/output/lines"; ls "$INPUT_more"']
    inputs: {data: "file:data.csv", more: "dir:more"}
    outputs: {lines: "file:lines", listed: "fd:1"}
    cache: true
  scale:
    script: |
      echo "{\\"name\\": \\"n\\", \\"value\\": $((${{ item }} * ${{ parameters:factor }}))}" >> \\
        "$PERIJOVE_JOB_DIR/output/.recorded.jsonl"
    map: [1, 2]
    outputs: {n: "record:n"}
    after: [count]
  when: {command: [sh, -c, 'echo "$KIND"; test -n "$API_TOKEN"'], outputs: {kind: "fd:1"},
         env: {KIND: "x", API_TOKEN: "s3cret"}}
"""


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, Installation]]:
    """Two installations that share nothing."""
    folder = tmp_path_factory.mktemp("two")
    options = ("--no-hub", "--launcher", "process", "--port", "0")
    with installed(folder / "one", *options) as one, installed(folder / "two", *options) as other:
        yield one, other


def perijove(site: Installation, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PERIJOVE_")}
    return subprocess.run(
        [str(Path(sys.executable).with_name("perijove")), *words],
        env={**env, "PERIJOVE_STATE": str(site.state)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_capsule_is_run_again_elsewhere(sites: tuple[Installation, Installation], tmp_path: Path) -> None:
    one, other = sites
    (tmp_path / "flow.yaml").write_text(FLOW)
    (tmp_path / "data.csv").write_text("a\nb\nc\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.txt").write_text("x")
    ran = perijove(one, tmp_path, "run", "flow.yaml", "-p", "factor=3", "--json")
    assert ran.returncode == 0, ran.stderr
    number = str(json.loads(ran.stdout)["id"])
    for options in ([], ["--data"]):
        name = f"sums{len(options)}.zip"
        packed = perijove(one, tmp_path, "capsule", number, "-o", name, *options)
        assert packed.returncode == 0, packed.stderr

    # Without its data it cannot run there; nothing is begun.
    again = perijove(other, tmp_path, "rerun", "sums0.zip", "--env", "API_TOKEN=other")
    assert again.returncode != 0
    assert "the capsule does not hold count/data" in again.stderr
    assert json.loads(perijove(other, tmp_path, "workflows", "--json").stdout) == []

    # With it the same comes out.
    again = perijove(other, tmp_path, "rerun", "sums1.zip", "--env", "API_TOKEN=other", "--json")
    assert again.returncode == 0, again.stderr
    rows = {(row["step"], row["what"]): row for row in json.loads(again.stdout)["rows"]}
    assert rows["scale[1]", "n"]["after"] == "6"
    assert rows["count", "lines"]["verdict"] == "same"
    assert {row["verdict"] for row in rows.values()} == {"same"}

    # Other data is refused, or used when that is what one wants.
    (tmp_path / "data.csv").write_text("a\n")
    given = ["rerun", "sums1.zip", "--env", "API_TOKEN=other", "--input", "count/data=data.csv", "--json"]
    refused = perijove(other, tmp_path, *given)
    assert refused.returncode != 0
    assert "data.csv is not what was run then" in refused.stderr
    forced = perijove(other, tmp_path, *given, "--force")
    assert forced.returncode == 1, forced.stderr
    rows = {(row["step"], row["what"]): row for row in json.loads(forced.stdout)["rows"]}
    assert rows["count", "lines"]["verdict"] == "differs"
    assert rows["count", "listed"]["verdict"] == "same"
