"""The files in which engines keep a container's output, read as they grow.

Docker: log driver ``local``, each entry a protobuf message (moby, api/types/plugins/logdriver/entry.proto)
between its length and its length again, four bytes each. Podman: log driver ``k8s-file`` (podman-run(1),
``--log-driver``), each entry a line ``TIME STREAM F TEXT``, or ``P`` for a part of a line of output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from perijove_spawners.launcher import Stream

Piece = tuple[Stream, bytes]
Decode = Callable[[bytes], tuple[list[Piece], int]]
"""The whole entries that some bytes begin with, and how many bytes they are; ``ValueError`` for others."""

BLOCK = 1 << 20


class LogRecords:
    """The file at `path`, read on from where the last reading ended."""

    def __init__(self, path: Path, decode: Decode) -> None:
        self._path = path
        self._decode = decode
        self._position = 0
        self.offsets: dict[Stream, int] = {"stdout": 0, "stderr": 0}
        """How much of each stream was read: where the pieces of :meth:`new` begin."""

    def new(self) -> Iterator[Piece]:
        """What was written since, as pieces of the streams; an unfinished entry is left for the next time.

        What is not taken to the end of a block is given again. ``ValueError`` for a file of another format.
        """
        with self._path.open("rb") as file:
            file.seek(self._position)
            rest = b""
            while block := file.read(BLOCK):
                rest += block
                pieces, used = self._decode(rest)
                yield from pieces
                rest = rest[used:]
                self._position += used
                for stream, text in pieces:
                    self.offsets[stream] += len(text)


def k8s_entries(data: bytes) -> tuple[list[Piece], int]:
    """Entries of the format ``k8s-file``."""
    whole, end, _ = data.rpartition(b"\n")
    if not end:
        return [], 0
    return [_k8s_piece(line) for line in whole.split(b"\n")], len(whole) + 1


def _k8s_piece(line: bytes) -> Piece:
    _, stream, tag, text = line.split(b" ", 3)
    return "stderr" if stream == b"stderr" else "stdout", text if tag == b"P" else text + b"\n"


def local_entries(data: bytes) -> tuple[list[Piece], int]:
    """Entries of the format ``local``."""
    pieces = []
    at = 0
    while len(data) - at >= 4:
        size = int.from_bytes(data[at : at + 4], "big")
        end = at + 4 + size
        if len(data) < end + 4:
            break
        if data[end : end + 4] != data[at : at + 4]:
            raise ValueError("the two lengths of an entry differ")
        pieces.append(_local_piece(data[at + 4 : end]))
        at = end + 4
    return pieces, at


SOURCE, LINE, PARTIAL, PARTIAL_METADATA = 1, 3, 4, 5
LAST = 1


def _local_piece(message: bytes) -> Piece:
    fields = _protobuf(message)
    line, metadata = fields.get(LINE, b""), fields.get(PARTIAL_METADATA, b"")
    if not isinstance(line, bytes) or not isinstance(metadata, bytes):
        raise ValueError("a field is a number and should be text")
    # the driver cuts long lines, and the end of a line is the end of its last part
    unfinished = fields.get(PARTIAL) and not _protobuf(metadata).get(LAST)
    stream: Stream = "stderr" if fields.get(SOURCE) == b"stderr" else "stdout"
    return stream, line if unfinished else line + b"\n"


def _protobuf(message: bytes) -> dict[int, int | bytes]:
    """The fields of a message by number; numbers for varints, bytes for what has a length."""
    fields: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == 0:
            fields[key >> 3] = value
        elif key & 7 == 2:
            fields[key >> 3] = message[at : at + value]
            at += value
        else:
            raise ValueError(f"unexpected wire type {key & 7}")
    return fields


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number has no end")
