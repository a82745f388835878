"""Files that are open from a job's start, what a sealed one may write, and what is said of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perijove_spawners.launcher import JOB_DIRECTORY, LaunchError

if TYPE_CHECKING:
    from tests.conformance.conftest import Stand


def seen(stand: Stand, job: str) -> str:
    return JOB_DIRECTORY if stand.target.image else job


@pytest.mark.needs("real")
async def test_a_file_is_standard_input_and_others_are_written_by_number(stand: Stand) -> None:
    stand.needs("stdin")
    launch = stand.launch(
        "cat; echo five >&5; (echo again >&5); echo nine >&9; cat <&3 2>/dev/null || echo none"
    )
    job = launch.directory / "job"
    (job / "it's input").write_text("read\n")
    (job / "it's input").chmod(0o644)
    top = seen(stand, str(job))
    given = stand.launch(
        command=launch.command,
        stdin=f"{top}/it's input",
        descriptors={5: f"{top}/.fd5", 9: f"{top}/a b $(id)"},
        directory=launch.directory,
        attempt=launch.attempt,
        env={"PERIJOVE_JOB_DIR": top},
    )
    await stand.launcher.start(given)
    assert (await stand.end_of(given)).exit_code == 0
    assert await stand.log(given, "stdout") == b"read\nnone\n"
    assert (stand.file(given, ".fd5"), stand.file(given, "a b $(id)")) == ("five\nagain\n", "nine\n")
    assert (job / ".fd5").stat().st_uid == stand.account.uid


@pytest.mark.needs("real")
async def test_without_a_file_standard_input_is_empty(stand: Stand) -> None:
    result = await stand.run("cat; echo end")
    assert result.stdout == b"end\n"


@pytest.mark.needs("image")
async def test_a_sealed_job_writes_to_its_own_alone(stand: Stand) -> None:
    stand.needs("sealed")
    folders = '/ /etc /usr/bin /home "$HOME" /tmp "$PERIJOVE_JOB_DIR"'
    script = f"for folder in {folders}; do touch $folder/x 2>/dev/null && echo $folder; done"
    result = await stand.run(f"{script}; ls /sys/class/net", sealed=True, mounts=(), cwd="/")
    assert result.text.split() == ["/tmp", JOB_DIRECTORY, "lo"]


@pytest.mark.needs("processes")
async def test_a_process_is_not_sealed_and_has_no_entrypoint(stand: Stand) -> None:
    assert "sealed" not in stand.launcher.capabilities.features
    for changes in ({"sealed": True}, {"entrypoint": True}):
        with pytest.raises(LaunchError, match="sealed, entrypoint"):
            await stand.launcher.start(stand.launch("true", **changes))


@pytest.mark.needs("image")
async def test_an_end_says_of_which_image_it_was_made(stand: Stand) -> None:
    result = await stand.run("true")
    assert stand.target.image is not None
    assert (await stand.launcher.images())[stand.target.image] == result.status.image_digest
    assert result.status.image_digest and result.status.image_digest.startswith("sha256:")
    assert stand.launcher.capabilities.version.startswith(stand.target.launcher)
