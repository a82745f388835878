"""The stand behind the service's own listener, on a port, for who speaks HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from perijove_hub.app import listen
from perijove_hub.listener import Door
from perijove_hub.settings import Settings

from .stand import Stand, standing


@dataclass(frozen=True)
class Served:
    """A stand that is reached from outside."""

    stand: Stand
    address: str
    loop: asyncio.AbstractEventLoop

    def token(self, role: str) -> str:
        """What a role sends as ``Authorization``."""
        return str(self.stand.by[role].headers["authorization"])


@contextmanager
def served(settings: Settings) -> Iterator[Served]:
    """The stand with a loop of its own, until it is left."""
    ready: Future[Served] = Future()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with standing(settings) as stand:
            [socket] = listen(["127.0.0.1:0"])
            config = uvicorn.Config(
                stand.app, log_config=None, access_log=False, lifespan="off", server_header=False, http=Door
            )
            server = uvicorn.Server(config)
            server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
            task = asyncio.create_task(server.serve(sockets=[socket]))
            while not server.started:
                assert not task.done()
                await asyncio.sleep(0.01)
            ready.set_result(Served(stand, f"http://127.0.0.1:{socket.getsockname()[1]}", loop))
            await over.wait()
            server.should_exit = True
            await task

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise
        finally:
            loop.close()

    thread = threading.Thread(target=run, name="served", daemon=True)
    thread.start()
    try:
        yield ready.result(60)
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)
