"""What Perijove asks of Dask, in scheduler, nodes and service alike."""

from __future__ import annotations

import logging

import dask

SETTINGS = {
    # The service decides where a job runs; nothing here may second-guess it.
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    # A node that dies again and again says nothing about the jobs it was sent.
    "distributed.scheduler.allowed-failures": 1_000_000,
    "distributed.scheduler.worker-ttl": "30s",
    "distributed.scheduler.events-cleanup-delay": "1m",
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.admin.log-length": 100,
    "distributed.admin.low-level-log-length": 20,
    # An idle installation is to be idle: by default Dask wakes up fifty times a second.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.cycle": "5s",
    "distributed.admin.tick.limit": "10s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.system-monitor.log-length": 10,
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.large-graph-warning-threshold": "1GB",
    "distributed.comm.compression": False,
    "distributed.comm.timeouts.connect": "10s",
    "distributed.comm.timeouts.tcp": "30s",
}


def configure_dask() -> None:
    """Set it, for this process."""
    dask.config.set(SETTINGS)
    logging.getLogger("distributed").setLevel(logging.WARNING)


HTTP_ADDRESS = "127.0.0.1:0"
"""Dask insists on an HTTP port; without routes it answers nothing."""
