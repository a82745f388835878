"""How long a collection takes with many files: ``python tests/bench/store.py [FILES]``.

Half of the files are needed by jobs that the database holds. The time for each file is printed beside that
with a tenth of them, the first ratio being what matters: 1 is linear.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from perijove.model import Job, JobSpec, State
from perijove_hub.garbage import Keeper
from perijove_hub.policy.document import load
from perijove_hub.settings import Settings
from perijove_hub.store.batch import Batch
from perijove_hub.store.database import Database
from perijove_spawners.store import Store

INPUTS = 50
"""Files that each job needs."""


def fill(store: Store, files: int) -> list[str]:
    """Small files that were put long ago. They are made as the store has them, without the pains it takes."""
    digests = []
    for number in range(files):
        digest = f"sha256:{number:064x}"[:71]
        digest = "sha256:" + digest[-2:] + digest[7:69]
        path = Path(store.url(digest).removeprefix("file://"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (1.0, 1.0))
        digests.append(digest)
    return digests


def need(database: Database, digests: list[str]) -> None:
    """Jobs that wait for these."""
    batch = Batch()
    for number, i in enumerate(range(0, len(digests), INPUTS), 1):
        inputs = {f"f{k}": digest for k, digest in enumerate(digests[i : i + INPUTS])}
        spec = JobSpec(command=["true"], inputs=inputs)
        batch.new[number] = Job(
            id=number, owner="o", name="n", state=State.PENDING, launcher="process", submitted=1.0, spec=spec
        )
    database.commit(batch)


async def measure(files: int) -> dict[str, float]:
    """Seconds of a dry run and of a collection."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(state=Path(folder))
        database, store = Database.at(Path(folder, "db")), Store(Path(folder, "store"))
        database.migrate()
        digests = await asyncio.to_thread(fill, store, files)
        need(database, digests[::2])
        keeper = Keeper(settings, database, store, lambda: load(""))
        found = {}
        for name, dry_run in (("dry run", True), ("collection", False)):
            began = time.perf_counter()
            done = await keeper.collect(dry_run=dry_run)
            found[name] = time.perf_counter() - began
            assert done.files == files // 2, done
        database.close()
        return found


async def main(files: int) -> None:
    """Print both sizes."""
    few, many = await measure(files // 10), await measure(files)
    for name in many:
        ratio = many[name] / few[name] / 10
        print(f"{name}: {files:,} files in {many[name]:.2f} s")
        print(f"  per file {ratio:.2f} times the time with {files // 10:,}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
