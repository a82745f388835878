"""More jobs wait than a pass can look at each time something changes."""

from __future__ import annotations

from boards import board_of, node, submit

from perijove.model import NodeState, State


def test_a_long_queue_is_looked_at_in_depth_once_a_second() -> None:
    """Passes in between are brief, and what fits behind a thousand that do not is not forgotten."""
    board, _ = board_of(node("n1", cpus=4), node("n2", cpus=4, state=NodeState.DRAIN))
    for _ in range(1100):
        submit(board, cpu=4, node="n2")
    board.place(100.0)
    assert len(board.reasons) == 1100
    last = submit(board, 100.1, cpu=1)
    board.place(100.1)
    assert board.jobs[last].state is State.PENDING
    assert board.end_delays(101.2)
    board.place(101.2)
    assert board.jobs[last].state is State.STARTING
    assert not board.end_delays(102.0)


def test_an_emptied_queue_leaves_nothing_to_look_at() -> None:
    board, _ = board_of(node("n1", cpus=4))
    board.brief = board.placeable = True
    board.place(100.0)
    assert not board.end_delays(101.0)
    assert not board.placeable
