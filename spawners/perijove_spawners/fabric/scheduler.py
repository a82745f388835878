"""The Dask scheduler, a process of its own: ``python -m perijove_spawners.fabric.scheduler``.

It holds no truth. When it comes back, at the same address, nodes and service find it again by themselves.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from pathlib import Path
from typing import Annotated

import typer
from distributed.scheduler import Scheduler
from distributed.security import Security

from perijove_spawners.fabric.dask_settings import HTTP_ADDRESS, configure_dask
from perijove_spawners.fabric.refused import stamp
from perijove_spawners.fabric.tls import ensure_tls

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between two looks at which certificates are refused."""


async def run_scheduler(host: str, port: int, tls: Path, address_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT; begin anew, at the same address, when other certificates are refused.

    `port` 0 takes the one in `address_file` when it can, else any. The address is written there.
    """
    configure_dask()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    waiting = asyncio.ensure_future(stop.wait())
    known = _known_port(address_file) if port == 0 else 0
    while True:
        refused = stamp(tls)
        security = ensure_tls(tls, "scheduler")
        try:
            scheduler = await _listening(host, known or port, security)
        except OSError:
            if not known:
                raise
            scheduler = await _listening(host, 0, security)
        known = _port_of(scheduler.address)
        if address_file:
            _write(address_file, scheduler.address)
        log.info("scheduler listens at %s", scheduler.address)
        finished = asyncio.ensure_future(scheduler.finished())
        renewed = asyncio.ensure_future(changed(tls, refused))
        await asyncio.wait({waiting, finished, renewed}, return_when=asyncio.FIRST_COMPLETED)
        anew = renewed.done() and not waiting.done() and not finished.done()
        renewed.cancel()
        await scheduler.close(reason="stopped")
        if not anew:
            return
        log.warning("other certificates are refused: all connections are made anew")


async def changed(tls: Path, before: bytes) -> None:
    """Return once other certificates are refused than `before`, which :func:`stamp` told."""
    while stamp(tls) == before:  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(LOOK)


async def _listening(host: str, port: int, security: Security) -> Scheduler:
    scheduler: Scheduler = await Scheduler(
        host=host,
        port=port,
        protocol="tls",
        security=security,
        dashboard=False,
        dashboard_address=HTTP_ADDRESS,
    )
    return scheduler


def read_address(file: Path) -> str | None:
    """The address that a scheduler wrote to `file`; None before it did."""
    try:
        address = json.loads(file.read_bytes())["address"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(address)


def _known_port(file: Path | None) -> int:
    return _port_of((read_address(file) if file else None) or "")


def _port_of(address: str) -> int:
    _, _, port = address.rpartition(":")
    return int(port) if port.isdecimal() else 0


def _write(file: Path, address: str) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"address": address, "pid": os.getpid()}))
    temporary.replace(file)


def scheduler(
    tls: Annotated[Path, typer.Option(help="Directory of the links' keys; made when missing.")],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: the one used before, or any.")] = 0,
    address_file: Annotated[Path | None, typer.Option(help="Where to leave the address, as JSON.")] = None,
) -> None:
    """Run the Dask scheduler between the service and its nodes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(run_scheduler(host, port, tls, address_file))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(scheduler)
    app()
