"""How far a simulation is: a bar on standard error, when that is a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from perijove_hub.simulation.trace import Arrival


class Bar:
    """Counts submissions as they come; of `total`, where that is known."""

    def __init__(self, *, quiet: bool = False, total: int | None = None) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("submissions"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        hidden = quiet or not console.is_terminal
        self._shown = Progress(*columns, console=console, transient=True, disable=hidden)
        self._task = self._shown.add_task("", total=total)

    def __enter__(self) -> Self:
        self._shown.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._shown.stop()

    def through(self, arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
        """The same, counted."""
        for arrival in arrivals:
            self._shown.advance(self._task)
            yield arrival
