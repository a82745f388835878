"""A real server that speaks S3 and checks signatures: rclone's, over a folder."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import s3fs

KEY, SECRET = "TESTKEY", "secret-of-the-test"


@dataclass(frozen=True)
class S3:
    """Where it is, and the folder whose subfolders are its buckets."""

    endpoint: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def options(self) -> dict[str, Any]:
        """For :class:`s3fs.S3FileSystem`, and a store's ``store_options``."""
        return {"key": KEY, "secret": SECRET, "endpoint_url": self.endpoint}

    def bucket(self) -> str:
        """A new one."""
        name = f"bucket-{secrets.token_hex(6)}"
        s3fs.S3FileSystem(**self.options).mkdir(name)
        return name

    def files(self, bucket: str) -> list[Path]:
        """What the bucket's objects are on the disk."""
        return sorted(path for path in (self.folder / bucket).rglob("*") if path.is_file())


@contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    """Run one until the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f"{folder.name}.log"
    program = shutil.which("rclone", path=str(Path(sys.executable).parent)) or "rclone"
    command = [program, "serve", "s3", str(folder), "--addr", "127.0.0.1:0", "--auth-key", f"{KEY},{SECRET}"]
    command += ["--config", "/dev/null", "--vfs-cache-mode", "off"]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            yield S3(_address(log, process), folder, process)
        finally:
            process.kill()


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up and process.poll() is None:
        if found := re.search(r"on \[(http://[\d.]+:\d+)", log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"the server did not start: {log.read_text()}")
