"""What goes into the notebook image, and when it is made anew."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

from perijove_hub.image.context import PACKAGES, checkout, inputs_digest
from perijove_hub.image.requirements import EXTRAS, closure, locked_requirements, notebook_requirements

LOCK = """\
alpha==1.0 ; sys_platform == 'linux' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via beta
Beta.Thing[extra]==2.0 \\
    --hash=sha256:cc
"""


def test_the_kernel_side_comes_with_all_it_needs_and_nothing_of_the_server() -> None:
    names = closure("perijove", EXTRAS)
    wanted = {"distributed", "jupyterlab", "ipykernel", "papermill", "httpx", "numpy", "traitlets"}
    assert wanted <= names
    assert not {"docker", "fastapi", "sqlmodel", "uvicorn"} & names


def test_without_a_lock_file_the_releases_are_those_installed_here() -> None:
    pins = dict(line.split("==") for line in notebook_requirements().split())
    assert pins["jupyterlab"] == distribution("jupyterlab").version
    assert "perijove" not in pins


def test_pins_and_hashes_of_a_lock_file_are_taken_over() -> None:
    locked = locked_requirements(LOCK)
    assert set(locked) == {"alpha", "beta-thing"}
    assert locked["alpha"].count("--hash") == 2
    assert "#" not in locked["alpha"]


def test_the_repositorys_own_lock_file_has_all_that_the_image_needs() -> None:
    text = notebook_requirements(checkout() / "requirements.lock")
    assert text.count("==") <= text.count("--hash=sha256:")


def test_an_incomplete_lock_file_is_not_mixed_with_other_pins(tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text(LOCK)
    assert notebook_requirements(tmp_path / "requirements.lock") == notebook_requirements()


def test_the_digest_changes_with_any_source_and_with_nothing_else(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "module.py").write_text("a = 1\n")
    first = inputs_digest(tmp_path)
    (tmp_path / PACKAGES[0] / "__pycache__").mkdir()
    (tmp_path / PACKAGES[0] / "__pycache__" / "module.pyc").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    assert inputs_digest(tmp_path) == first
    (tmp_path / PACKAGES[1] / "module.py").write_text("a = 2\n")
    assert inputs_digest(tmp_path) != first


def test_the_tour_goes_into_each_home_once_and_over_nothing(tmp_path: Path) -> None:
    home, prefix = tmp_path / "home", tmp_path / "prefix"
    home.mkdir()
    (home / "thesis.tex").touch()
    (home / "taken.ipynb").write_text("mine")
    tour = prefix / "share" / "perijove" / "tour"
    tour.mkdir(parents=True)
    (tour / "tour.ipynb").write_text("{}")
    (tour / "taken.ipynb").write_text("{}")
    config = files("perijove_hub.image").joinpath("files", "jupyter_server_config.py").read_text()
    code = f"import sys; sys.prefix = {str(prefix)!r}\n{config}"
    env = {**os.environ, "HOME": str(home), "SHELL": "/bin/bash"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert (home / "tour.ipynb").read_text() == "{}"
    assert (home / "taken.ipynb").read_text() == "mine"
    (home / "tour.ipynb").unlink()
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert not (home / "tour.ipynb").exists()
