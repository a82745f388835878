"""Where the proxy comes from: a program's name is not enough to know it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from perijove.model import OperatorError
from perijove_hub import proxy


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_the_environments_own_copy_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = program(tmp_path / "bin", proxy.NAME, "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert proxy.find_proxy(tmp_path) == [str(on_path)]

    script = program(
        proxy.install_directory(tmp_path) / "node_modules" / proxy.NAME / "bin", proxy.NAME, "//\n"
    )
    found = proxy.find_proxy(tmp_path)
    assert found == [proxy.find_node(), str(script)]


def test_the_python_program_of_the_same_name_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", proxy.NAME, "#!/usr/bin/python3\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert proxy.find_proxy(tmp_path) is None


def test_an_install_cut_short_is_not_found_and_leaves_nothing(tmp_path: Path) -> None:
    target = proxy.install_directory(tmp_path)
    with pytest.raises(NotADirectoryError), proxy._new_directory(target) as scratch:
        program(scratch, "node_modules", "").joinpath("half").mkdir()
    assert list(target.parent.iterdir()) == []


def test_npms_own_words_reach_the_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    monkeypatch.setenv("NPM_CONFIG_FETCH_RETRIES", "0")
    monkeypatch.setenv("NPM_CONFIG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(OperatorError, match="ECONNREFUSED"):
        proxy.install_proxy(tmp_path / "prefix")


@pytest.mark.slow
def test_the_pinned_version_installs_and_runs(tmp_path: Path) -> None:
    command = proxy.install_proxy(tmp_path)
    assert str(proxy.install_directory(tmp_path)) in command[-1]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == proxy.VERSION
    assert proxy.install_proxy(tmp_path) == command
