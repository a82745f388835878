"""Which ends are worth another try, and with how much memory."""

from __future__ import annotations

from perijove.model import Job, JobSpec, Outcome, ReasonCode, State
from perijove.model.values import RetryCause

NODES_FAULT_NEVER = frozenset({ReasonCode.OUT_OF_MEMORY, ReasonCode.TIME_LIMIT, ReasonCode.OUTPUT_MISSING})
"""Ends that would be the same on another node."""


def is_cause(cause: RetryCause, outcome: Outcome) -> bool:
    """Whether `outcome` is the end that `cause` means."""
    match cause.cause:
        case "failure":
            return True
        case "node":
            return outcome.reason is ReasonCode.NODE_LOST
        case "oom":
            return outcome.reason is ReasonCode.OUT_OF_MEMORY
        case "time":
            return outcome.reason is ReasonCode.TIME_LIMIT
        case "exit":
            return outcome.reason is ReasonCode.NON_ZERO_EXIT and outcome.exit_code == cause.code


def may_retry(spec: JobSpec, failures: int, outcome: Outcome) -> bool:
    """Whether a job that failed `failures` times before is run again after `outcome`."""
    if outcome.state not in {State.FAILED, State.LOST} or failures >= spec.retries:
        return False
    return not spec.retry_on or any(is_cause(cause, outcome) for cause in spec.retry_on)


def more_memory(spec: JobSpec, outcome: Outcome, largest: int) -> int | None:
    """Bytes to try again with after it ran out of memory; None when it is not to, or no node has more."""
    if spec.oom_retry is None or outcome.reason is not ReasonCode.OUT_OF_MEMORY:
        return None
    wanted = min(int(spec.memory * spec.oom_retry), largest)
    return wanted if wanted > spec.memory else None


def failed_nodes(job: Job, outcome: Outcome) -> list[str]:
    """Where attempts of `job` failed, this one included, in order."""
    node = job.node
    if node is None or outcome.reason in NODES_FAULT_NEVER or node in job.failed_nodes:
        return job.failed_nodes
    return [*job.failed_nodes, node]
