"""Events a second of simulations, and how that grows with jobs and with nodes; a rehearsal's replay.

A million jobs on 10,000 nodes by ``python tests/bench/simulation.py 1000000 10000``; without arguments a
table of smaller ones, whose ratios are what counts. CPU time of this process.
"""

from __future__ import annotations

import gc
import resource
import sys
import time

from perijove_hub.simulation.engine import Simulation
from perijove_hub.simulation.fleet import nodes_of
from perijove_hub.simulation.measure import Measure
from perijove_hub.simulation.site import Site
from perijove_hub.simulation.synthetic import Demand, synthetic


def play(jobs: int, nodes: int, load: float = 1.0) -> float:
    """CPU seconds of `jobs` of one core for an hour, which ask for `load` of all cores of `nodes` of 32."""
    days = jobs / (nodes * 32 * 24 * load)
    demand = Demand(users=100, days=days, jobs=jobs / 100 / days, steady=True)
    measure = Measure()
    simulation = Simulation(Site(nodes_of(f"{nodes}x32:128G"), every=1.0), synthetic(demand), [measure])
    begun = time.process_time()
    simulation.run()
    took = time.process_time() - begun
    report = measure.report(simulation)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{report.submitted:>9} jobs {nodes:>6} nodes: {took:8.1f} s, {report.events / took:8.0f} events/s, "
        f"{took / report.submitted * 1e6:6.0f} us/job, {report.passes} passes, peak {peak:.0f} MiB",
        flush=True,
    )
    return took


def main(arguments: list[str]) -> None:
    gc.set_threshold(100_000)
    if arguments:
        play(int(arguments[0]), int(arguments[1]))
        return
    base = play(10_000, 100)
    print(f"ten times the jobs: {play(100_000, 100) / base:.1f} times as long")
    print(f"ten times the nodes: {play(10_000, 1000) / base:.1f} times as long")
    print(f"more asked for than there is: {play(10_000, 100, load=1.3) / base:.1f} times as long")


if __name__ == "__main__":
    main(sys.argv[1:])
