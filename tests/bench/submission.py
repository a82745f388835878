"""Jobs accepted durably by REST, one by one and a hundred at once, beside SQLite's own floor.

python tests/bench/submission.py
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from measure import Installation, seconds, show, site, spread

SINGLE, BULK, CLIENTS, ROUNDS = 2000, 20_000, 16, 3


def floor(rows_at_once: int, total: int) -> float:
    """Rows per second that SQLite itself commits durably."""
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "floor.db", isolation_level=None)
        connection.execute("pragma journal_mode=WAL")
        connection.execute("pragma synchronous=FULL")
        connection.execute("create table job (id integer primary key, state text, spec text)")

        def write() -> None:
            for _ in range(total // rows_at_once):
                connection.execute("begin")
                rows = [("pending", '{"command": ["true"]}')] * rows_at_once
                connection.executemany("insert into job (state, spec) values (?, ?)", rows)
                connection.execute("commit")

        return total / seconds(write)


async def post(installation: Installation, path: str, body: bytes, requests: int, clients: int) -> float:
    """Seconds for that many requests over `clients` connections.

    Written on bare streams: a real HTTP client costs more than the service and would be what is measured.
    """
    where = urlsplit(installation.url)
    head = f"POST /api/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {installation.token}\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body

    async def client() -> None:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        for _ in range(requests // clients):
            writer.write(request)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert answer.startswith(b"http/1.1 201"), answer
            await reader.readexactly(int(answer.split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return time.perf_counter() - begun


def main() -> None:
    import json

    # Held, so that what is measured is the acceptance and nothing starts meanwhile.
    spec = {"command": ["true"], "hold": True}
    one, hundred = json.dumps(spec).encode(), json.dumps([spec] * 100).encode()
    singles, bulks, floor_one, floor_hundred = [], [], [], []
    with site("--launcher", "process") as installation:
        for _ in range(ROUNDS):
            floor_one.append(floor(1, SINGLE))
            singles.append(SINGLE / asyncio.run(post(installation, "/jobs", one, SINGLE, CLIENTS)))
            floor_hundred.append(floor(100, BULK))
            took = asyncio.run(post(installation, "/jobs/bulk", hundred, BULK // 100, 2))
            bulks.append(BULK / took)
    rows = [
        ["one a request, 16 connections", spread(singles, 0), _ratio(singles, floor_one)],
        ["SQLite alone, a row a transaction", spread(floor_one, 0), "1.00"],
        ["a hundred a request, 2 connections", spread(bulks, 0), _ratio(bulks, floor_hundred)],
        ["SQLite alone, a hundred rows a transaction", spread(floor_hundred, 0), "1.00"],
    ]
    show("Jobs accepted (the client shares the cores)", ["what", "jobs/s", "to the floor"], rows)


def _ratio(values: list[float], base: list[float]) -> str:
    return f"{statistics.median(values) / statistics.median(base):.2f}"


if __name__ == "__main__":
    main()
