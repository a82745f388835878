"""Points in time and durations, as people type them and as they are shown."""

from __future__ import annotations

import time

from perijove.model import UserError, parse_duration


def clock(at: float | None) -> str:
    """Seconds since the epoch as date and time of this machine's zone; ``-`` for none."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def date(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 date. Raises ``ValueError``."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except OverflowError as error:
        raise ValueError(str(error)) from None


def instant(text: str, *, ago: bool = False) -> float:
    """Seconds since the epoch of an ISO 8601 date, or so long from now, or `ago`. Raises ``ValueError``."""
    try:
        return date(text)
    except ValueError:
        away = parse_duration(text)
    return time.time() - away if ago else time.time() + away


def seconds(option: str, text: str) -> float:
    """Seconds. Raises :class:`UserError` naming the option."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UserError(f"{option}: {error} (given: {text})") from None
