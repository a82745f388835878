"""How long it takes to say why a job waits, when it may start and what would let it start now.

100,000 jobs of 100 users wait on 200 full nodes; asked are the head of the queue, its end and some between.
Times are CPU time of this process. Run by hand: ``python tests/bench/why.py [JOBS]``.
"""

from __future__ import annotations

import random
import sys
import time

from perijove_hub.jobs.situation import why
from perijove_hub.simulation.engine import Simulation
from perijove_hub.simulation.fleet import nodes_of
from perijove_hub.simulation.measure import quantile
from perijove_hub.simulation.site import Site
from perijove_hub.simulation.synthetic import Demand, synthetic

ASKED = 60


def main(jobs: int) -> None:
    demand = Demand(users=100, days=0.1, jobs=jobs / 10, arrays=0, bursts=0, minutes=600, seed=1)
    trace = list(synthetic(demand))
    simulation = Simulation(Site(nodes_of("200x64:256G:4gpu"), every=600.0), trace)
    simulation.board.terse = False
    while simulation.now < 0.1 * 86400 and simulation.step():
        pass
    board, now = simulation.board, simulation.now
    board.placeable = True
    board.place(now)
    board.take()
    waiting = [job for job in board.jobs.values() if job.id in board.queue]
    chance = random.Random(0)
    asked = [*waiting[:10], *waiting[-10:], *chance.sample(waiting, ASKED - 20)]
    times = []
    for job in asked:
        begun = time.process_time()
        why(board, job, now)
        times.append(time.process_time() - begun)
    times.sort()
    begun = time.process_time()
    board.placeable = True
    board.place(now)
    one_pass = time.process_time() - begun
    figures = [quantile(times, part) * 1000 for part in (0.5, 0.95, 1.0)]
    print(
        f"{len(waiting)} wait; median {figures[0]:.1f} ms, 95 % {figures[1]:.1f} ms, most {figures[2]:.1f} ms"
    )
    print(f"one pass takes {one_pass * 1000:.1f} ms: {figures[1] / one_pass / 1000:.2f} of it at 95 %")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
