"""A store in a bucket: killed writers, damage, wrong credentials, a server that is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from bucket import S3, s3_server
from waiting import wait_until

from perijove.model import NotFoundError, OperatorError, UnavailableError
from perijove_spawners.store import CHUNK, CorruptError, Store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3") / "buckets") as server:
        yield server


@pytest.fixture
def bucket(server: S3) -> str:
    return server.bucket()


@pytest.fixture
def store(server: S3, bucket: str) -> Store:
    return Store(f"s3://{bucket}/perijove", **server.options)


UPLOAD = """
import sys, time
from perijove_spawners.store import Store
store = Store(sys.argv[1], key=sys.argv[2], secret=sys.argv[3], endpoint_url=sys.argv[4])
with store.writer() as writer:
    for number in range(40):
        writer.write(bytes([number]) * (1 << 20))
    print("sent", flush=True)
    time.sleep(600)
"""


def test_a_writer_killed_in_the_midst_leaves_nothing_to_be_seen(
    server: S3, store: Store, bucket: str
) -> None:
    options = server.options
    words = [f"s3://{bucket}/perijove", options["key"], options["secret"], options["endpoint_url"]]
    command = [sys.executable, "-c", UPLOAD, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"sent\n"
        os.kill(process.pid, signal.SIGKILL)
    assert list(store.all()) == []
    fs = store._place.fs  # type: ignore[attr-defined]
    assert len(fs.list_multipart_uploads(bucket)) == 1
    store.sweep(time.time() - 3600)
    assert len(fs.list_multipart_uploads(bucket)) == 1, "it might still be at work"
    store.sweep(time.time() + 3600)
    assert fs.list_multipart_uploads(bucket) == []


def test_a_flipped_bit_is_noticed(server: S3, store: Store, bucket: str, tmp_path: Path) -> None:
    digest = store.put([os.urandom(CHUNK), b"the end"]).digest
    [file] = [path for path in server.files(bucket) if path.name == digest[9:]]
    damaged = bytearray(file.read_bytes())
    damaged[12345] ^= 1
    file.write_bytes(damaged)
    with store.open(digest) as opened, pytest.raises(CorruptError, match=digest):
        opened.read()
    with pytest.raises(CorruptError):
        store.check(digest)
    with pytest.raises(CorruptError):
        store.copy_out(digest, tmp_path / "out")
    with pytest.raises(NotFoundError):
        store.check(digest)


def test_whoever_has_no_key_reads_nothing(server: S3, store: Store, bucket: str) -> None:
    digest = store.put([b"secret"]).digest
    assert httpx.get(f"{server.endpoint}/{bucket}/perijove/sha256/{digest[7:9]}/{digest[9:]}").is_error
    stranger = Store(f"s3://{bucket}/perijove", **{**server.options, "secret": "wrong"})
    with pytest.raises(OperatorError, match="credentials"):
        stranger.put([b"x"])
    with pytest.raises(OperatorError, match="credentials"):
        stranger.open(digest)
    signed = store.sign(digest, 60)
    assert signed is not None and httpx.get(signed).content == b"secret"
    assert httpx.get(signed[:-4] + "0000").is_error


def test_a_bucket_that_is_not_there_is_for_the_operator(server: S3) -> None:
    store = Store("s3://no-such-bucket/perijove", **server.options)
    with pytest.raises(OperatorError, match="bucket"):
        store.put([b"x"])


def test_a_server_that_is_not_there_may_come_back(tmp_path: Path) -> None:
    with s3_server(tmp_path / "buckets") as server:
        store = Store(f"s3://{server.bucket()}/perijove", **server.options)
        digest = store.put([b"x"]).digest
        server.process.kill()
        wait_until(lambda: server.process.poll() is not None, "the server ends")
        for act in (lambda: store.put([b"y"]), lambda: store.open(digest), lambda: store.exists(digest)):
            with pytest.raises(UnavailableError, match="cannot be reached"):
                act()


def test_what_came_by_a_signed_url_counts_once_it_is_taken_in(server: S3, store: Store) -> None:
    url = store.sign_upload("0" * 32, 60)
    assert url is not None
    with pytest.raises(NotFoundError):
        store.take_upload("0" * 32)
    assert httpx.put(url, content=b"by URL").is_success
    assert list(store.all()) == []
    taken = store.take_upload("0" * 32)
    assert [(blob.digest, blob.size) for blob in store.all()] == [(taken.digest, 6)]
    with pytest.raises(NotFoundError):
        store.take_upload("0" * 32)
