"""A real PostgreSQL of our own, that a test may kill, and databases on it and on SQLite."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import psutil
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from waiting import wait_until

USER, PASSWORD = "perijove", "a/secret@with:marks"


def binaries() -> Path | None:
    """Where the newest PostgreSQL's programs are: Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[4]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


class Postgres:
    """A server in `folder`, on a free port of 127.0.0.1. `durable`: with fsync, for failures and figures."""

    def __init__(self, folder: Path, programs: Path, *, durable: bool) -> None:
        self.folder, self._programs, self._durable = folder, programs, durable
        self.port = _free_port()
        self._names = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Make the cluster's files."""
        folder = self.folder
        folder.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        argv = ["initdb", "-D", f"{folder}/data", "-U", USER, "--pwfile", str(password)]
        self._run([*argv, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "-N"])

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "max_connections": 60,
            "shared_buffers": "128MB",
        }
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        argv = [*self._as_owner(), str(self._programs / "postgres"), "-D", f"{self.folder}/data", *options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        wait_until(self._answers, "the start of PostgreSQL", 60)

    def stop(self) -> None:
        """A fast shutdown (SIGINT): open transactions are rolled back."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
            self._process = None

    def kill(self) -> None:
        """-9 to all of it, as a power cut."""
        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        everyone = [parent, *parent.children(recursive=True)]
        for process in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(60)
        psutil.wait_procs(everyone, timeout=60)
        self._process = None

    def new(self) -> str:
        """SQLAlchemy's URL of a new, empty database."""
        name = f"perijove_{next(self._names)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name: str) -> str:
        password = PASSWORD.replace("/", "%2F").replace("@", "%40").replace(":", "%3A")
        return f"postgresql+psycopg://{USER}:{password}@127.0.0.1:{self.port}/{name}"

    def connect(self, name: str = "postgres") -> psycopg.Connection:
        """A connection outside of what is tested, each statement its own transaction."""
        where = make_conninfo(host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=name)
        return psycopg.connect(where, autocommit=True, connect_timeout=5)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"PostgreSQL does not start:\n{(self.folder / 'log').read_text()[-2000:]}")
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _as_owner(self) -> list[str]:
        # It refuses to run as root.
        if os.geteuid() != 0:
            return []
        # Neither does it outlive the tests, however they end.
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig", "INT"]

    def _run(self, argv: list[str]) -> None:
        command = [*self._as_owner(), str(self._programs / argv[0]), *argv[1:]]
        ran = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise RuntimeError(f"{argv[0]} failed:\n{ran.stdout}\n{ran.stderr}")


@contextlib.contextmanager
def postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """A running server in a temporary folder."""
    programs = binaries()
    if programs is None:
        _absent("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pj-pg-"))
    server = Postgres(folder, programs, durable=durable)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    """A server that all tests share; fast, since nobody cuts its power."""
    with postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of each sort in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'perijove.db'}"
    server: Postgres = request.getfixturevalue("postgresql")
    return server.new()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _absent(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (CI must have it: run tests/setup)")
    pytest.skip(f"{reason}; tests/setup provides it")
