"""The build context of the notebook image: every file that goes in, and the digest of them all."""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import subprocess
import sys
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path

from perijove.model import OperatorError
from perijove_hub.image.requirements import notebook_requirements

PACKAGES = ("hub_ext/perijove_hub", "kernel_ext/perijove", "spawners/perijove_spawners")
CA_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


def checkout() -> Path:
    """The source tree this installation runs from. :class:`OperatorError` when it is not one."""
    for parent in Path(__file__).resolve().parents:
        if (parent / "pyproject.toml").is_file() and (parent / PACKAGES[0]).is_dir():
            return parent
    raise OperatorError(
        "the notebook image is built from a checkout of Perijove; this installation is not one"
    )


def inputs_digest(source: Path) -> str:
    """Changes whenever the image would: sources, pins, and how it is put together."""
    digest = hashlib.sha256(notebook_requirements(source / "requirements.lock").encode())
    for path in _input_files(source):
        digest.update(f"\0{path.relative_to(source)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def write_context(target: Path, source: Path) -> None:
    """Fill the empty directory `target` with all that the Dockerfile copies."""
    with as_file(files("perijove_hub.image") / "files") as templates:
        shutil.copytree(templates, target, dirs_exist_ok=True)
    (target / "requirements.txt").write_text(notebook_requirements(source / "requirements.lock"))
    _write_certificates(target)
    tour = target / "tour"
    tour.mkdir()
    for notebook in sorted((source / "binder").glob("*.ipynb")):
        shutil.copyfile(notebook, tour / notebook.name)
    _build_wheel(source, target)


def _input_files(source: Path) -> list[Path]:
    found = [source / "pyproject.toml", source / "README.md", *(source / "binder").glob("*.ipynb")]
    for package in PACKAGES:
        found += [p for p in (source / package).rglob("*") if "__pycache__" not in p.parts]
    return sorted(path for path in found if path.is_file())


def _write_certificates(target: Path) -> None:
    """The host's certificate bundle for the build; also for later, where the site has its own authority."""
    own = next((value for name in CA_VARIABLES if (value := os.environ.get(name))), None)
    bundle = Path(own or ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt")
    certificates = bundle.read_bytes() if bundle.is_file() else b""
    (target / "ca.crt").write_bytes(certificates)
    (target / "pip.conf").write_text("[global]\ncert = /opt/nb/ca.crt\n" if own and certificates else "")


def _build_wheel(source: Path, target: Path) -> None:
    python, out = [sys.executable, "-m"], str(target)
    if find_spec("hatchling"):
        command = [*python, "hatchling", "build", "--target", "wheel", "--directory", out]
    elif find_spec("uv"):
        command = [*python, "uv", "build", "--quiet", "--wheel", "--out-dir", out, str(source)]
    elif find_spec("pip"):
        command = [*python, "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, str(source)]
    else:
        raise OperatorError(
            "to build the notebook image, install uv (or pip, or hatchling) in this environment"
        )
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OperatorError(f"the wheel of Perijove could not be built:\n{done.stderr.strip()[-2000:]}")
