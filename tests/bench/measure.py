"""What the benchmarks share: a temporary installation, and tables of ratios."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from installation import Installation as Installation
from installation import installed as installed
from rich.console import Console
from rich.table import Table


@contextmanager
def site(*options: str, **settings: str) -> Iterator[Installation]:
    """`perijove up --no-hub` in a temporary directory; `settings` become ``PERIJOVE_*`` variables."""
    env = {f"PERIJOVE_{name.upper()}": value for name, value in settings.items()}
    with (
        tempfile.TemporaryDirectory(prefix="perijove-bench-") as folder,
        installed(Path(folder) / "state", "--no-hub", "--port", "0", *options, env=env) as installation,
    ):
        yield installation


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def spread(values: list[float], digits: int = 1) -> str:
    """Median [least..most]."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}..{max(values):.{digits}f}]"


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)
