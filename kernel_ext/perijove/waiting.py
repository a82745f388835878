"""Why a job waits, when it will start and what would start it now, as text for people.

The service's answer (``GET /jobs/12/why``) holds facts; here are the sentences.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from perijove.model.quantities import format_duration, format_size, parse_size
from perijove.reading import label_of, reason_text

Document = Mapping[str, Any]
SHOWN = 5
"""Blockers named one by one; the others are counted."""


class Explanation(dict[str, Any]):
    """The service's answer, which prints as sentences."""

    def __repr__(self) -> str:
        return "\n".join(why_lines(self))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


def why_lines(why: Document, now: float | None = None) -> list[str]:
    """All of it, a line for each thing."""
    job = why["job"]
    given = why.get("reason") or job.get("reason")
    reason = reason_text({"reason": given})
    lines = [f"job {label_of(job)} {job['state']}{f': {reason}' if reason else ''}"]
    lines += [f"  {line}" for line in blocker_lines((given or {}).get("blockers") or [])]
    if text := forecast_text(why.get("forecast"), now):
        lines.append(f"  {text}")
    return lines + [f"  {text}" for text in map(hint_text, why.get("hints") or []) if text]


def blocker_lines(blockers: Sequence[Document], shown: int = SHOWN) -> list[str]:
    """What is said of each blocker; of many of the first ones, and how many more."""
    lines = [str(one.get("message") or f"{one['kind']} {one['name']}") for one in blockers[:shown]]
    return lines + ([f"and {len(blockers) - shown} more"] if len(blockers) > shown else [])


def forecast_text(forecast: Document | None, now: float | None = None) -> str:
    """When it is likely to start, as a range; empty when that is not to be known."""
    if not forecast:
        return ""
    now = time.time() if now is None else now
    earliest, likely, latest = (forecast.get(name) for name in ("earliest", "likely", "latest"))
    parts = []
    if latest is not None and latest < now + 60:
        return "starts within a minute"
    if latest is not None and earliest is not None and latest - earliest >= 60:
        parts.append(f"between {clock(earliest, now)} and {clock(latest, now)}")
    elif latest is not None:
        parts.append(f"by {clock(latest, now)}")
    elif earliest is not None:
        parts.append(f"not before {clock(earliest, now)}")
    if likely is not None:
        parts.append(f"probably in {_about(likely - now)}" if likely > now + 1 else "probably now")
    return f"starts {', '.join(parts)}" if parts else ""


def _about(seconds: float) -> str:
    return re.sub("(?<=[dhm])00[hms]$", "", format_duration(seconds))


def clock(at: float, now: float) -> str:
    """A time of today as ``14:05``, another with its date."""
    then, today = time.localtime(at), time.localtime(now)
    near = (then.tm_year, then.tm_yday) == (today.tm_year, today.tm_yday)
    return time.strftime("%H:%M" if near else "%Y-%m-%d %H:%M", then)


def hint_text(hint: Document) -> str:
    """For example ``with --memory 12G instead of 16G it would start now``."""
    return str(hint.get("message") or "")


def gpus_text(gpus: Document) -> str:
    """GPUs as people ask for them: ``2``, ``a100:2``, ``a100:2@40G``."""
    count, model, memory = gpus.get("count", 0), gpus.get("model"), gpus.get("memory")
    text = f"{model}:{count}" if model else str(count)
    return f"{text}@{exact_size(memory)}" if memory else text


def exact_size(size: int) -> str:
    """A size that means the same when it is given again."""
    short = format_size(size)
    return short if short[-1].isalpha() and parse_size(short) == size else str(size)


def exact_duration(seconds: float) -> str:
    """Likewise, in the largest unit that makes it a whole number."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{str(seconds).removesuffix('.0')}s"
