"""A service reduced to its lease and its commits, as a process of its own that a test may stop or kill.

python leading.py URL HOLDER TTL [LOCK]

Prints ``leads FENCE`` when it does, then ``wrote N`` for each job it committed (the owner is HOLDER), and
``stale`` before it ends because another leads.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path

from perijove.model import Job, JobSpec, State
from perijove_hub.store.database import TRANSIENT, Batch, Database, StaleLeaderError
from perijove_hub.store.leadership import Leadership

OWN = 10**9
"""Ids of a leader begin at its fence times this."""


def say(*words: object) -> None:
    print(*words, flush=True)


def end() -> None:
    say("stale")
    os._exit(3)


def main(url: str, holder: str, ttl: float, lock: str | None = None) -> None:
    database = Database(url)
    leadership = Leadership(database, holder, f"http://{holder}", ttl=ttl, lock=Path(lock) if lock else None)
    leadership.lost = end
    fence = asyncio.run(leadership.wait())
    say("leads", fence)
    threading.Thread(target=_write, args=(database, holder, fence), daemon=True).start()
    sys.stdin.read()
    leadership.release()


def _write(database: Database, holder: str, fence: int) -> None:
    for number in range(fence * OWN, (fence + 1) * OWN):
        spec = JobSpec(command=["true"])
        job = Job(id=number, owner=holder, name="j", state=State.HELD, submitted=time.time(), spec=spec)
        batch = Batch(new={number: job})
        while True:
            try:
                database.commit(batch)
            except StaleLeaderError:
                end()
            except TRANSIENT:
                time.sleep(0.05)
            else:
                break
        say("wrote", number)
        time.sleep(0.01)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(arguments[0], arguments[1], float(arguments[2]), *arguments[3:4])
