"""The board by itself: what it makes of a database that another process left behind."""

from __future__ import annotations

from typing import Any

from perijove.model import Job, JobSpec, ReasonCode, State
from perijove_hub.jobs.board import Board
from perijove_hub.ledger import Ledger


def job(number: int, **fields: Any) -> Job:
    spec = JobSpec.model_validate({"command": ["true"], **fields.pop("spec", {})})
    given = {"owner": "alice", "name": "j", "state": State.PENDING, "submitted": 0.0, **fields}
    return Job.model_validate({"id": number, "spec": spec, **given})


def test_a_job_found_waiting_in_vain_is_rejected_and_never_run() -> None:
    board = Board(Ledger(), last_job=3)
    waiting = [job(2, spec={"depends_on": ["afterok:1"]}), job(3, spec={"depends_on": ["afterok:2"]})]
    board.load(waiting, 5.0, {1: job(1, state=State.FAILED)})
    assert board.waiting == 0
    for number in (2, 3):
        found = board.find(number)
        assert found is not None
        assert found.state is State.REJECTED
        assert found.reason is not None
        assert found.reason.code is ReasonCode.DEPENDENCY_NEVER_SATISFIED
    assert set(board.pending.batch.changed) == {2, 3}


def test_a_job_found_waiting_goes_on_waiting() -> None:
    board = Board(Ledger(), last_job=2)
    board.load([job(1), job(2, spec={"depends_on": ["afterok:1"]})], 5.0, {})
    assert board.waiting == 1
    assert board.find(2) == job(2, spec={"depends_on": ["afterok:1"]})
