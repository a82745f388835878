"""The content-addressed store, on a folder and on another fsspec file system."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perijove.model import NotFoundError, TooLargeError
from perijove_spawners.store import CHUNK, CorruptError, Store


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(tmp_path / "store" if request.param == "folder" else f"memory://{tmp_path}")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(chunks=st.lists(st.binary(max_size=100), max_size=20))
def test_what_is_put_is_read_back(store: Store, chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    stored = store.put(chunks)
    assert (stored.digest, stored.size) == (digest_of(data), len(data))
    assert store.exists(stored.digest) and store.size(stored.digest) == len(data)
    with store.open(stored.digest) as file:
        assert file.read() == data


def test_a_file_larger_than_a_chunk(store: Store) -> None:
    data = bytes(range(256)) * (3 * CHUNK // 256 + 7)
    stored = store.put(io.BytesIO(data))
    with store.open(stored.digest) as file:
        assert file.read(10) == data[:10]
        assert file.read() == data[10:]


def test_the_same_content_is_kept_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.put([b"same"]) == store.put([b"sa", b"me"])
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1


def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError("gone")

    store = Store(tmp_path)
    with pytest.raises(ConnectionError):
        store.put(broken())
    with pytest.raises(TooLargeError, match="at most 3"):
        store.put([b"half"], limit=3)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_damage_is_noticed_on_reading(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stored = store.put([b"what it was"])
    [file] = [p for p in tmp_path.rglob("*") if p.is_file()]
    file.write_bytes(b"what it is!")
    with store.open(stored.digest) as opened, pytest.raises(CorruptError, match=stored.digest):
        opened.read()


@pytest.mark.parametrize(
    "digest", ["sha256:" + "0" * 64, "sha256:../../etc/passwd", "md5:abc", "", "x" * 500]
)
def test_what_is_not_there_is_not_found(store: Store, digest: str) -> None:
    with pytest.raises(NotFoundError):
        store.open(digest)
    with pytest.raises(NotFoundError):
        store.size(digest)


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    Store(tmp_path / "store")
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700


def test_several_put_the_same_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    errors: list[BaseException] = []

    def put() -> None:
        try:
            for number in range(20):
                store.put([b"same", bytes([number])])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 20
