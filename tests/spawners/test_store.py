"""The contract of stores: on a folder, on a bucket of a real S3 server, and on another fsspec file system."""

from __future__ import annotations

import hashlib
import io
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket import S3, s3_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perijove.model import NotFoundError, TooLargeError
from perijove_spawners.store import CHUNK, Blob, CorruptError, Entry, FullError, Store


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3") / "buckets") as server:
        yield server


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        server: S3 = request.getfixturevalue("s3")
        return Store(f"s3://{server.bucket()}/perijove", **server.options)
    return Store(tmp_path / "store" if request.param == "folder" else f"memory://{tmp_path}")


def read(store: Store, digest: str) -> bytes:
    with store.open(digest) as file:
        return file.read()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
@given(chunks=st.lists(st.binary(max_size=100), max_size=20))
def test_what_is_put_is_read_back(store: Store, chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    stored = store.put(chunks)
    assert (stored.digest, stored.size) == (digest_of(data), len(data))
    assert store.exists(stored.digest) and store.size(stored.digest) == len(data)
    assert read(store, stored.digest) == data


@pytest.mark.parametrize("chunks", [3, 37])
def test_a_file_of_many_chunks(store: Store, chunks: int) -> None:
    """37 MiB are three parts of a multipart upload."""
    data = secrets.token_bytes(CHUNK) * chunks + b"rest"
    stored = store.put(io.BytesIO(data))
    with store.open(stored.digest) as file:
        assert file.read(10) == data[:10]
        assert hashlib.sha256(data[:10] + file.read()).hexdigest() == stored.digest.removeprefix("sha256:")


def test_the_same_content_is_kept_once(store: Store) -> None:
    assert store.put([b"same"]) == store.put([b"sa", b"me"]) == store.put(io.BytesIO(b"same"))
    assert [(blob.digest, blob.size) for blob in store.all()] == [(digest_of(b"same"), 4)]


def test_what_breaks_off_is_never_visible(store: Store) -> None:
    def broken() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(CHUNK)
            assert list(store.all()) == []
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        store.put(broken())
    with pytest.raises(TooLargeError, match="at most 3"):
        store.put([b"half"], limit=3)
    assert list(store.all()) == []
    assert not store.exists(digest_of(bytes(20 * CHUNK)))


@pytest.mark.parametrize(
    "digest", ["sha256:" + "0" * 64, "sha256:../../etc/passwd", "md5:abc", "", "x" * 500]
)
def test_what_is_not_there_is_not_found(store: Store, digest: str) -> None:
    with pytest.raises(NotFoundError):
        store.open(digest)
    with pytest.raises(NotFoundError):
        store.size(digest)
    with pytest.raises(NotFoundError):
        store.open_tree(digest)


def test_several_put_the_same_at_once(store: Store) -> None:
    errors: list[BaseException] = []

    def put() -> None:
        try:
            for number in range(5):
                store.put([b"same" * 1000, bytes([number])])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = list(store.all())
    assert len(found) == 5
    for blob in found:
        store.check(blob.digest)


def test_which_of_many_are_there(store: Store) -> None:
    there = {store.put([bytes([number])]).digest for number in range(5)}
    tree = store.put_tree([Entry("a", min(there), 1)]).digest
    assert store.exists_many([*there, tree, digest_of(b"other"), "sha256-tree:" + "1" * 64]) == {*there, tree}


# Folders


def tree_in(store: Store, files: dict[str, bytes]) -> str:
    entries = [
        Entry(path, store.put([data]).digest, len(data), path.endswith(".sh")) for path, data in files.items()
    ]
    return store.put_tree(entries).digest


def test_a_folder_comes_back_as_it_was(store: Store, tmp_path: Path) -> None:
    files = {"b/run.sh": b"#!/bin/sh\n", "a.txt": b"one", "b/c/d/deep": b"", "b/c/\u00e4\n\u2028": b"two"}
    digest = tree_in(store, files)
    assert digest.startswith("sha256-tree:") and digest == tree_in(store, dict(reversed(files.items())))
    assert store.size(digest) == sum(map(len, files.values()))
    given: list[Path] = []
    store.copy_out(digest, tmp_path / "out", given.append)
    made = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*")}
    assert {name: path.read_bytes() for name, path in made.items() if path.is_file()} == files
    assert {name: path.stat().st_mode & 0o777 for name, path in made.items() if path.is_file()} == {
        name: 0o555 if name.endswith(".sh") else 0o444 for name in files
    }
    assert set(given) == {tmp_path / "out", *made.values()}
    store.check(digest)


def test_a_folder_with_a_lost_file_is_not_copied_out_as_if_it_were_whole(
    store: Store, tmp_path: Path
) -> None:
    digest = tree_in(store, {"a": b"one", "b": b"two"})
    assert store.delete([digest_of(b"two")]) == {digest_of(b"two")}
    with pytest.raises(NotFoundError, match=digest_of(b"two")):
        store.copy_out(digest, tmp_path / "out")
    with pytest.raises(NotFoundError):
        store.check(digest)
    assert not store.refresh(digest)


def test_nothing_is_overwritten_or_followed(store: Store, tmp_path: Path) -> None:
    stored = store.put([b"mine"])
    (tmp_path / "there").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    tree = store.put_tree([Entry("a", stored.digest, 4)]).digest
    for name in ("there", "link"):
        for digest in (stored.digest, tree):
            with pytest.raises(FileExistsError):
                store.copy_out(digest, tmp_path / name)
    assert (tmp_path / "there").read_bytes() == b"precious"
    assert not (tmp_path / "elsewhere").exists()


# Removing


def changed(store: Store) -> dict[str, Blob]:
    return {blob.digest: blob for blob in store.all()}


def test_what_was_put_again_since_is_not_removed(store: Store) -> None:
    digest = store.put([b"old"]).digest
    long_ago = changed(store)[digest].changed - 1000
    assert store.delete([digest], before=long_ago) == set()
    assert read(store, digest) == b"old"
    first = changed(store)[digest].changed
    while time.time() < first + 0.01:
        pass
    assert store.refresh(digest)
    assert changed(store)[digest].changed > first
    assert store.delete([digest], before=first + 0.001) == set()
    assert store.delete([digest]) == {digest} and not store.exists(digest)
    assert not store.refresh(digest)
    assert list(store.all()) == []


def test_what_is_put_while_it_is_removed_stays(store: Store) -> None:
    for number in range(8):
        data = b"wanted again %d" % number
        digest = store.put([data]).digest
        first = changed(store)[digest].changed
        while time.time() < first + 0.01:
            pass
        remover = threading.Thread(target=store.delete, args=[[digest]], kwargs={"before": first + 0.005})
        remover.start()
        assert store.put(io.BytesIO(data)).digest == digest
        remover.join()
        assert read(store, digest) == data


def test_a_store_declared_full_takes_nothing_and_gives_everything(store: Store) -> None:
    digest = store.put([b"before"]).digest
    store.declare_full("the store is full: 2 GiB of 1 GiB are taken")
    with pytest.raises(FullError, match="2 GiB of 1 GiB"):
        store.put([b"more"])
    assert read(store, digest) == b"before"
    store.declare_full(None)
    store.put([b"more"])


# Only on a folder


def test_damage_is_noticed_on_reading_and_not_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for damaged in (b"what it is!", b"what it wa", b"what it was!", b""):
        digest = store.put([b"what it was"]).digest
        whole = store.put_tree([Entry("a", digest, 11, False)]).digest
        [file] = [p for p in tmp_path.rglob("*") if p.is_file() and p.read_bytes() == b"what it was"]
        file.write_bytes(damaged)
        with store.open(digest) as opened, pytest.raises(CorruptError, match=digest):
            opened.read()
        assert store.exists(digest)
        with pytest.raises(CorruptError):
            store.copy_out(whole, tmp_path / f"out{len(damaged)}{damaged[-1:]!r}")
        assert not store.exists(digest)
        assert not store.refresh(whole)
    store.put([b"what it was"])
    assert read(store, digest) == b"what it was"


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    Store(tmp_path / "store")
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700


def test_what_a_killed_writer_left_is_swept_away(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writer() as writer:
        writer.write(b"half")
        store.sweep(time.time() - 3600)
        assert len(list((tmp_path / "incoming").iterdir())) == 1
        store.sweep(time.time() + 1)
        assert not list((tmp_path / "incoming").iterdir())
