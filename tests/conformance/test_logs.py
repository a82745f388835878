"""What a job wrote, byte by byte."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from perijove_spawners.launcher import Phase

if TYPE_CHECKING:
    from tests.conformance.conftest import Stand


async def test_a_piece_from_an_offset(stand: Stand) -> None:
    launch = await stand.start(stand.programs.echo("0123456789"))
    await stand.end_of(launch)

    async def piece(offset: int, limit: int) -> bytes:
        return await stand.launcher.logs(launch.attempt, "stdout", offset=offset, limit=limit)

    assert await piece(0, 4) == b"0123"
    assert await piece(4, 100) == b"456789\n"
    assert await piece(11, 100) == b""
    assert await piece(5000, 100) == b""
    assert await stand.log(launch, "stdout", piece=3) == b"0123456789\n"


async def test_a_log_is_read_while_it_grows(stand: Stand) -> None:
    programs = stand.programs
    launch = await stand.start(programs.echo("one"), programs.sleep(1.0), programs.echo("two"))
    seen = b""
    running_when_first_seen = None
    while not seen.endswith(b"two\n"):
        more = await stand.launcher.logs(launch.attempt, "stdout", offset=len(seen), limit=1000)
        if more and running_when_first_seen is None:
            running_when_first_seen = (await stand.status(launch)).phase
        seen += more
        await asyncio.sleep(0.02)
    assert seen == b"one\ntwo\n"
    assert running_when_first_seen is Phase.RUNNING


async def test_bytes_that_are_no_text(stand: Stand) -> None:
    data = bytes(range(256)) + b"\xff\xfe\x00\x80"
    assert (await stand.run(stand.programs.emit(data))).stdout == data


async def test_a_line_of_64_kib(stand: Stand) -> None:
    line = random.Random(7).choices("abcdefgh", k=65536)
    text = "".join(line)
    assert (await stand.run(stand.programs.echo(text))).stdout == text.encode() + b"\n"


async def test_no_line_end_at_the_end(stand: Stand) -> None:
    assert (await stand.run(stand.programs.emit(b"half a line"))).stdout == b"half a line"


@pytest.mark.needs("real")
async def test_a_log_of_many_lines_is_whole_and_in_order(stand: Stand) -> None:
    launch = await stand.start("i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done", cpu=2.0)
    await stand.end_of(launch)
    lines = (await stand.log(launch, "stdout")).decode().splitlines()
    assert lines == [f"line {i}" for i in range(30000)]


@pytest.mark.needs("real")
async def test_a_log_of_ten_megabytes(stand: Stand) -> None:
    result = await stand.run("head -c 10000000 /dev/zero | tr '\\0' x")
    assert result.stdout == b"x" * 10_000_000
