"""What administrators and leads do to what is not theirs, one line each in the log."""

from __future__ import annotations

import json
import logging
from typing import Any

from perijove.model import Job
from perijove_hub.identity import Caller

log = logging.getLogger("perijove.audit")


def record(caller: Caller, act: str, subject: str, **detail: Any) -> None:
    """`caller` does `act` to `subject`. Written before it is done: an act that fails was tried."""
    line = {"by": caller.name, "act": act, "subject": subject, **detail}
    log.info("%s", json.dumps(line, default=str, sort_keys=True))


def record_on_job(caller: Caller, act: str, job: Job, **detail: Any) -> None:
    """The same for a job, unless it is the caller's own."""
    role = caller.role(job)
    if role != "owner":
        record(caller, act, f"job {job.label}", owner=job.owner, role=role, **detail)
