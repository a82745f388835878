"""The engine's multiplexed log stream, and the files it is copied into."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perijove_spawners.containers.container_log import append, frames
from perijove_spawners.containers.log_records import Decode, LogRecords, k8s_entries, local_entries
from perijove_spawners.launcher import Stream

Pieces = list[tuple[Stream, bytes]]
STREAM: st.SearchStrategy[Stream] = st.sampled_from(["stdout", "stderr"])
PIECES = st.lists(st.tuples(STREAM, st.binary(min_size=1, max_size=300)), max_size=20)


def multiplexed(pieces: Pieces) -> bytes:
    kinds = {"stdout": 1, "stderr": 2}
    return b"".join(bytes([kinds[s], 0, 0, 0]) + len(data).to_bytes(4, "big") + data for s, data in pieces)


def text_of(pieces: Pieces, stream: Stream) -> bytes:
    return b"".join(data for s, data in pieces if s == stream)


@given(PIECES)
def test_frames_give_back_each_stream(pieces: Pieces) -> None:
    found = list(frames(io.BytesIO(multiplexed(pieces)).read))
    assert found == pieces


@given(PIECES, st.integers(0, 5000))
def test_a_stream_cut_short_gives_a_prefix(pieces: Pieces, cut: int) -> None:
    found = list(frames(io.BytesIO(multiplexed(pieces)[:cut]).read))
    for stream in ("stdout", "stderr"):
        assert text_of(pieces, stream).startswith(text_of(found, stream))


def test_a_frame_of_any_size_is_taken_in_small_pieces() -> None:
    long: Pieces = [("stdout", b"x" * 1_000_000)]
    found = list(frames(io.BytesIO(multiplexed(long)).read))
    assert max(len(data) for _, data in found) <= 1 << 16
    assert text_of(found, "stdout") == long[0][1]


@given(pieces=PIECES, first=st.integers(0, 20))
def test_a_second_copy_adds_what_the_first_lacked(
    pieces: Pieces, first: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("log")
    append(iter(pieces[:first]), directory)
    append(iter(pieces), directory)
    append(iter(pieces), directory)
    for stream in ("stdout", "stderr"):
        assert (directory / stream).read_bytes() == text_of(pieces, stream)


def test_files_are_the_agents_alone_and_exist_when_nothing_was_written(tmp_path: Path) -> None:
    append(iter(()), tmp_path)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"stdout": 0o600, "stderr": 0o600}


def local_entry(stream: Stream, line: bytes, *, partial: bool = False, last: bool = False) -> bytes:
    """An entry as Docker's driver ``local`` writes it; lines are stored without their end."""

    def field(number: int, value: bytes) -> bytes:
        size, key = len(value), bytes([number << 3 | 2])
        varint = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
        return key + varint + value

    message = field(1, stream.encode()) + b"\x10\xde\x96\xc2\x8a\x96\xb2\xfd\xf4\x18"
    message += field(3, line) if line else b""
    if partial:
        message += b"\x20\x01" + field(5, (b"\x08\x01" if last else b"") + field(2, b"id") + b"\x18\x02")
    size = len(message).to_bytes(4, "big")
    return size + message + size


def k8s_entry(stream: Stream, line: bytes, *, partial: bool = False, last: bool = False) -> bytes:
    tag = b"P" if partial and not last else b"F"
    return b"2026-11-21T04:03:11.123456789+00:00 " + stream.encode() + b" " + tag + b" " + line + b"\n"


ENTRIES = st.lists(
    st.tuples(
        STREAM, st.binary(max_size=300).map(lambda line: line.replace(b"\n", b"")), st.sampled_from("FPL")
    ),
    max_size=15,
)


@pytest.mark.parametrize(
    ("entry", "decode"), [(local_entry, local_entries), (k8s_entry, k8s_entries)], ids=["local", "k8s"]
)
@given(entries=ENTRIES, cuts=st.lists(st.integers(0, 5000), max_size=4))
def test_a_file_that_grows_is_read_once_and_whole(
    entry: Callable[..., bytes],
    decode: Decode,
    entries: list[tuple[Stream, bytes, str]],
    cuts: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("log")
    data = b"".join(entry(s, line, partial=kind != "F", last=kind == "L") for s, line, kind in entries)
    written: Pieces = [(s, line if kind == "P" else line + b"\n") for s, line, kind in entries]
    records = LogRecords(directory / "engine.log", decode)
    for cut in [*sorted(cuts), len(data)]:
        (directory / "engine.log").write_bytes(data[:cut])
        append(records.new(), directory, begin=records.offsets)
    for stream in ("stdout", "stderr"):
        assert (directory / stream).read_bytes() == text_of(written, stream)
        assert records.offsets[stream] == len(text_of(written, stream))


@pytest.mark.parametrize("data", [b"\0\0\0\1x\0\0\0\2", b"\0\0\0\2\x0f\x01\0\0\0\2", b"\0\0\0\1\xff\0\0\0\1"])
def test_a_file_of_another_format_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"differ|wire type|no end"):
        local_entries(data)
