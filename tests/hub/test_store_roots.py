"""What the database says is needed of the content store, on both databases; what could go, decided purely."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from bucket import s3_server
from hypothesis import given
from hypothesis import strategies as st
from installation import installed

import perijove
from perijove.model import Job, JobSpec, NotFoundError, State
from perijove.model.trees import Entry, Manifest
from perijove_hub.garbage import collectable, needed
from perijove_hub.store import files
from perijove_hub.store.batch import Batch
from perijove_hub.store.database import Database
from perijove_spawners.store import Blob, CorruptError


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def job(number: int, state: State, **changes: Any) -> Job:
    given = changes.pop("spec", {})
    spec = JobSpec.model_validate(given if "function" in given else {"command": ["true"], **given})
    fields = {"owner": "alice", "name": "j", "submitted": float(number), "launcher": "process"}
    return Job.model_validate({"id": number, "state": state, **fields, **changes, "spec": spec})


def test_live_and_kept_jobs_are_roots_and_archived_ones_are_not(database: Database) -> None:
    tree = "sha256-tree:" + f"{9:064x}"
    new = [
        job(1, State.PENDING, spec={"inputs": {"a": digest(1), "t": tree}}),
        job(2, State.PENDING, spec={"function": digest(2)}),
        job(3, State.PENDING, spec={"inputs": {"a": digest(3)}}),
        job(4, State.PENDING, spec={"image": f"archive:{digest(4)}"}),
    ]
    database.commit(Batch(new={one.id: one for one in new}))
    ended = {"ended": 9.0, "outputs": {"out": digest(22)}, "sizes": {"out": 7}}
    kept = new[1].model_copy(update={"state": State.SUCCEEDED, **ended})
    gone = new[2].model_copy(update={"state": State.FAILED, "ended": 9.0, "archived": True})
    database.commit(Batch(changed={2: kept, 3: gone}))
    assert files.roots(database) == {digest(1), tree, digest(2), digest(22), digest(4)}
    assert files.owned_sizes(database, "alice", [digest(22), digest(1)]) == {digest(22): 7}
    assert not files.owned_sizes(database, "bob", [digest(22)])
    database.commit(Batch(changed={2: kept.model_copy(update={"archived": True})}))
    assert files.roots(database) == {digest(1), tree, digest(4)}


def test_the_oldest_that_may_leave_outputs(database: Database) -> None:
    new = [job(n, State.PENDING, spec={"outputs": ["o"]} if n < 3 else {}) for n in range(1, 4)]
    database.commit(Batch(new={one.id: one for one in new}))
    assert files.oldest_at_work(database) is None
    begun = {2: 50.0, 3: 10.0}
    running = {
        n: new[n - 1].model_copy(update={"state": State.RUNNING, "started": at}) for n, at in begun.items()
    }
    database.commit(Batch(changed=running))
    assert files.oldest_at_work(database) == 50.0


def test_ownership_goes_with_the_file(database: Database) -> None:
    sizes = {digest(number): number for number in range(1200)}
    files.add_files(database, "alice", dict(list(sizes.items())[:3]), 1.0)
    files.add_files(database, "bob", {digest(1): 1}, 1.0)
    assert [(one.owner, one.files, one.size) for one in files.owned(database)] == [
        ("alice", 3, 3),
        ("bob", 1, 1),
    ]
    files.forget_files(database, sizes.keys() - {digest(2)})
    assert [(one.owner, one.files, one.size) for one in files.owned(database)] == [("alice", 1, 2)]


# Decided without a database


blobs_of = st.lists(
    st.builds(Blob, st.integers(0, 30).map(digest), st.just(1), st.floats(0, 100)), max_size=40
)


@given(blobs=blobs_of, kept=st.sets(st.integers(0, 30).map(digest)), before=st.floats(0, 100))
def test_only_what_is_old_and_not_needed_goes(blobs: list[Blob], kept: set[str], before: float) -> None:
    gone = list(collectable(blobs, kept, before))
    assert all(blob.digest not in kept and blob.changed < before for blob in gone)
    assert all(blob in gone or blob.digest in kept or blob.changed >= before for blob in blobs)


def test_a_folder_needs_its_files_and_its_list() -> None:
    manifest = Manifest.of([Entry("a", digest(1), 1), Entry("b/c", digest(2), 1)])

    def open_tree(wanted: str) -> Manifest:
        if wanted == manifest.digest:
            return manifest
        raise NotFoundError("gone") if wanted.endswith("1") else CorruptError("damaged")

    others = ["sha256-tree:" + "1" * 64, "sha256-tree:" + "2" * 64]
    found = needed([manifest.digest, digest(3), *others], open_tree)
    lists = {f"sha256:{one.partition(':')[2]}" for one in (manifest.digest, *others)}
    assert found == {digest(1), digest(2), digest(3), *lists}


# And all of it together, in a bucket


@pytest.mark.slow
def test_an_installation_keeps_its_files_in_a_bucket(tmp_path: Path) -> None:
    state, folder = tmp_path / "state", tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("hello")
    with s3_server(tmp_path / "s3") as server:
        bucket = server.bucket()
        state.mkdir(mode=0o711)
        (state / "perijove.yaml").write_text(
            f"store: s3://{bucket}/site\nstore_options: {server.options}\n".replace("'", '"')
        )
        env = {
            "HOME": str(tmp_path),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        with installed(state, "--no-hub", "--launcher", "process", "--port", "0", env=env) as installation:
            client = perijove.Client(installation.url, installation.token)
            digest = client.upload(folder)
            script = 'cp -r "$PERIJOVE_JOB_DIR/input/data" "$PERIJOVE_JOB_DIR/output/copy"'
            spec = {"script": script, "inputs": {"data": digest}, "outputs": {"copy": "dir:copy"}}
            job = client.submit({**spec, "launcher": "process"}).wait(timeout=100)
            assert job.state is State.SUCCEEDED, job.reason
            back = client.download(job.record.outputs["copy"], tmp_path / "back")
            assert (back / "a.txt").read_text() == "hello"
            assert not (state / "store").exists() and server.files(bucket)
