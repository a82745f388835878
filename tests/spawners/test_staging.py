"""What is laid out for a job, what it finds in its environment, and which directories it may see."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import absent

from perijove.model import Account, Attempt, Gpu
from perijove_spawners.launcher import Mount
from perijove_spawners.node import environment, homes, mounts
from perijove_spawners.node.jobfiles import ForeignFileError, open_file, read_display
from perijove_spawners.node.mounts import MountError
from perijove_spawners.node.progress import LINE_LIMIT, ProgressReader, latest
from perijove_spawners.node.staging import StagingError, stage
from perijove_spawners.protocol import Order
from perijove_spawners.store import Store

ME = Account("me", os.getuid(), os.getgid(), "/home/me")
STRANGER = Account("stranger", 54321, 54321, "/home/stranger")
ORDER = Order(
    attempt=Attempt(12, 1),
    incarnation="i",
    launcher="process",
    owner="me",
    account=ME,
    title="t",
    command=("true",),
)


@pytest.fixture
def as_root() -> None:
    if os.geteuid() != 0:
        absent("only root gives files away")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "12.1"
    path.mkdir()
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_script_and_inputs_are_laid_out(folder: Path, store: Store) -> None:
    stored = store.put([b"data"])
    stage(folder, replace(ORDER, script="#!/bin/sh\necho é\n", inputs={"x.npy": stored.digest}), store)
    job = folder / "job"
    assert (job / "script").read_text() == "#!/bin/sh\necho é\n"
    assert (job / "input/x.npy").read_bytes() == b"data"
    assert list((job / "output").iterdir()) == []
    assert {p.name for p in folder.iterdir()} == {"job"}


def test_staging_goes_on_where_it_was_cut_short(folder: Path, store: Store) -> None:
    (folder / ".job/input").mkdir(parents=True)
    (folder / ".job/input/left").write_text("half")
    stage(folder, replace(ORDER, script="true"), store)
    assert {p.name for p in (folder / "job").iterdir()} == {"script", "output"}
    (folder / "job/output/result").write_text("kept")
    stage(folder, replace(ORDER, script="true"), store)
    assert (folder / "job/output/result").read_text() == "kept"


def test_an_input_the_store_lacks_is_named(folder: Path, store: Store) -> None:
    digest = "sha256:" + "1" * 64
    with pytest.raises(StagingError, match=digest):
        stage(folder, replace(ORDER, inputs={"x": digest}), store)
    assert not (folder / "job").exists()


@pytest.mark.usefixtures("as_root")
def test_all_of_it_belongs_to_the_account(folder: Path, store: Store) -> None:
    stored = store.put([b"data"])
    order = replace(ORDER, account=STRANGER, script="true", inputs={"x": stored.digest})
    stage(folder, order, store)
    job = folder / "job"
    found = [job, job / "script", job / "output"]
    assert {(p.stat().st_uid, p.stat().st_gid) for p in found} == {(54321, 54321)}
    assert {p.stat().st_mode & 0o077 for p in found} == {0}


@pytest.mark.parametrize(
    ("script", "argv"),
    [
        ("#!/usr/bin/env python3\nprint()", ("/usr/bin/env", "python3")),
        ("#!/usr/bin/env -S python3 -u\n", ("/usr/bin/env", "-S python3 -u")),
        ("#! /bin/dash\r\n", ("/bin/dash",)),
    ],
)
def test_a_script_runs_through_its_interpreter(script: str, argv: tuple[str, ...]) -> None:
    order = replace(ORDER, script=script, args=("a b", "c"))
    assert environment.command(order, "/run/perijove") == (*argv, "/run/perijove/script", "a b", "c")


def test_a_script_without_an_interpreter_runs_in_bash(folder: Path, store: Store) -> None:
    script = 'a=(1 2); echo "${a[1]} $1 $0"; exit 3'
    order = replace(ORDER, script=script, args=("x; y",))
    stage(folder, order, store)
    argv = environment.command(order, str(folder / "job"))
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (3, f"2 x; y {folder}/job/script\n")


def test_the_environment_states_facts_that_a_spec_cannot_change() -> None:
    gpus = (Gpu(index=1, uuid="gpu1"),)
    given = {"CUDA_VISIBLE_DEVICES": "0,1", "PERIJOVE_JOB_ID": "1", "OMP_NUM_THREADS": "7", "A": "b"}
    order = replace(ORDER, env=given, cpu=1.5, memory=1000, gpus=gpus)
    env = environment.environment(order, node="n1", containers=False, directory="/d")
    assert env["CUDA_VISIBLE_DEVICES"] == env["NVIDIA_VISIBLE_DEVICES"] == "1"
    assert (env["PERIJOVE_JOB_ID"], env["PERIJOVE_ATTEMPT"]) == ("12", "1")
    assert (env["OMP_NUM_THREADS"], env["A"]) == ("7", "b")
    assert (env["PERIJOVE_CPUS"], env["PERIJOVE_MEMORY"]) == ("1.5", "1000")
    assert env["HOME"] == "/home/me" and env["PERIJOVE_JOB_DIR"] == "/d"
    assert "PERIJOVE_IMAGE" not in env


def test_a_container_without_the_home_has_its_job_directory_instead() -> None:
    without = replace(ORDER, image="lab:1")
    env = environment.environment(without, node="n1", containers=True, directory="/run/perijove")
    assert env["HOME"] == "/run/perijove" and env["PERIJOVE_IMAGE"] == "lab:1"
    assert "PATH" not in env
    assert environment.cwd(without, True, "/run/perijove") == "/run/perijove"
    within = replace(without, mounts=(Mount("/srv/homes/me", "/home/me"),))
    assert environment.cwd(within, True, "/run/perijove") == "/home/me"
    assert environment.cwd(replace(within, cwd="/home/me/x"), True, "/run/perijove") == "/home/me/x"


def test_mounts_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    [mount] = mounts.resolve([Mount(str(tmp_path / "link"), "/data", True)], "n1")
    assert mount == Mount(str(tmp_path / "real"), "/data", True)


@pytest.mark.parametrize("source", ["relative", "/tmp/../etc", "/no/such/directory"])
def test_sources_that_are_no_directories_are_refused(source: str) -> None:
    with pytest.raises(MountError, match="/data"):
        mounts.resolve([Mount(source, "/data")], "n1")


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("way", ["last", "middle", "behind"])
def test_a_users_link_is_not_followed(tmp_path: Path, way: str) -> None:
    real = tmp_path / "real/sub"
    real.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(real if way == "last" else real.parent)
    os.chown(link, STRANGER.uid, STRANGER.gid, follow_symlinks=False)
    source = link if way == "last" else link / "sub"
    if way == "behind":
        (tmp_path / "good").symlink_to("link/sub")
        source = tmp_path / "good"
    with pytest.raises(MountError, match="is a link made by a user"):
        mounts.resolve([Mount(str(source), "/data")], "n1")


@pytest.mark.usefixtures("as_root")
def test_a_home_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    source = tmp_path / "homes/stranger"
    mount = Mount(str(source), STRANGER.home)
    homes.make_home(STRANGER, [mount])
    assert (source.stat().st_uid, source.stat().st_mode & 0o777) == (STRANGER.uid, 0o700)
    (source / "kept").touch()
    homes.make_home(STRANGER, [mount])
    assert [p.name for p in source.parent.iterdir()] == ["stranger"] and (source / "kept").exists()


@pytest.fixture
def job(folder: Path) -> Path:
    (folder / "job/output").mkdir(parents=True)
    return folder / "job"


def test_files_of_the_job_are_opened_as_a_strangers(folder: Path, job: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    (job / "output/link").symlink_to(tmp_path / "secret")
    os.mkfifo(job / "output/fifo")
    (job / "output/folder").mkdir()
    (job / "linked").symlink_to(tmp_path)
    (job / "output/good").write_text("fine")
    for parts in (("output", "link"), ("output", "fifo"), ("output", "folder"), ("linked", "secret")):
        with pytest.raises(ForeignFileError):
            open_file(folder, ME, *parts)
    with pytest.raises(ForeignFileError, match="not a regular file of the job's account"):
        open_file(folder, STRANGER, "output", "good")
    with open_file(folder, ME, "output", "good") as file:
        assert file.read() == b"fine"


def test_a_job_directory_swapped_for_a_link_gives_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere/output").mkdir(parents=True)
    (tmp_path / "elsewhere/output/x").write_text("s3cret")
    (tmp_path / "elsewhere/display.jsonl").write_text("s3cret")
    (folder / "job").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ForeignFileError):
        open_file(folder, ME, "output", "x")
    assert read_display(folder, ME, 0, 100) == b""


def test_progress_is_read_once_and_only_whole_lines(folder: Path, job: Path) -> None:
    reader = ProgressReader(folder, ME)
    assert reader.read() is None
    with (job / "display.jsonl").open("a") as file:
        file.write('{"progress": 0.1}\n{"progress": 0.2, "te')
        file.flush()
        assert reader.read() == (0.1, "")
        assert reader.read() is None
        file.write('xt": "b"}\n' + "x" * 3 * LINE_LIMIT + '\n{"progress": 7}\n')
        file.flush()
        assert reader.read() == (1.0, "")
    (job / "display.jsonl").write_text('{"progress": 0.3, "text": "anew"}\n')
    assert reader.read() == (0.3, "anew")


@pytest.mark.parametrize(
    "line",
    [
        b'{"progress": "NaN"}',
        b'{"progress": null}',
        b'["progress"]',
        b'{"progress": {}}',
        b'{"progress": 1e999}',
        b'{"progress"',
        b'"progress"' + b"[" * 100_000,
        b"\xff\xfe progress",
    ],
)
def test_malformed_progress_is_ignored(line: bytes) -> None:
    assert latest(b'{"progress": 0.5, "text": "a\\nb"}\n' + line + b"\n") == (0.5, "ab")
