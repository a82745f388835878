"""What guests are told before it is too late."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from perijove.model import format_size
from perijove_hub.accounting import HOUR
from perijove_hub.policy.account import Amounts
from perijove_hub.policy.guests import GuestTerms

WARNED = (0.95, 0.8)
"""Of what may be used, from where on somebody is told."""
SOON = 7 * 86400.0
"""Seconds before its end from which on a guest's time is mentioned."""


def warnings(terms: GuestTerms, used: Amounts, expires: float | None, now: float) -> list[str]:
    """Sentences for a guest; `used`: in all."""
    found = [*_of_home(terms), *_of_budget(terms, used)]
    if expires is not None and now < expires < now + SOON:
        found.append(f"your account ends on {datetime.fromtimestamp(expires, UTC):%Y-%m-%d %H:%M} UTC")
    return found


def _of_home(terms: GuestTerms) -> Iterator[str]:
    if terms.disk is None or terms.disk_used is None:
        return
    share = terms.disk_used / terms.disk if terms.disk else 1.0
    figures = f"{format_size(terms.disk_used)} of {format_size(terms.disk)}"
    if share >= 1:
        yield f"your home is over its cap, with {figures}: no new jobs are accepted until you remove files"
    elif level := _level(share):
        yield f"your home is more than {level:.0%} full: {figures}"


def used_up(terms: GuestTerms, used: Amounts) -> dict[str, str]:
    """Which budgets are used up (``CPU``, ``GPU``), and the figures."""
    return {name: figures for name, share, figures in _shares(terms, used) if share >= 1}


def _shares(terms: GuestTerms, used: Amounts) -> Iterator[tuple[str, float, str]]:
    limits = (("CPU", terms.budget.cpu_hours, used.cpu), ("GPU", terms.budget.gpu_hours, used.gpu))
    for name, hours, seconds in limits:
        if hours is not None:
            share = seconds / (hours * HOUR) if hours else 1.0
            yield name, share, f"{seconds / 60:.1f} of {hours * 60:.1f} minutes"


def _of_budget(terms: GuestTerms, used: Amounts) -> Iterator[str]:
    for name, share, figures in _shares(terms, used):
        if share >= 1:
            yield f"your {name} budget is used up, with {figures}: no new jobs are accepted"
        elif level := _level(share):
            yield f"more than {level:.0%} of your {name} budget is used: {figures}"


def _level(share: float) -> float | None:
    return next((level for level in WARNED if share >= level), None)
