"""The words every part of Perijove speaks: specs, states, quantities, records, errors.

Nothing here does I/O, reads a clock or knows a library of the server side. Times are seconds
since the epoch (UTC) as ``float``; memory is bytes as ``int``; durations are seconds.

Names are loaded when first used: the errors and quantities are standard library only, and a command
that needs no more should not pay for pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perijove.model.errors import (
        ConflictError,
        ErrorCode,
        FieldError,
        ForbiddenError,
        InvalidSpecError,
        NotFoundError,
        OperatorError,
        PerijoveError,
        TooLargeError,
        UnauthorizedError,
        UnavailableError,
        UserError,
    )
    from perijove.model.parameters import Parameter, parameter_values
    from perijove.model.people import (
        Announcement,
        AuditEntry,
        Budget,
        Invitation,
        LinkedIdentity,
        Scope,
        SecretName,
        SshKey,
        Token,
        User,
        UserKind,
        UserState,
    )
    from perijove.model.places import Condition, Reference
    from perijove.model.quantities import (
        format_duration,
        format_size,
        parse_duration,
        parse_size,
    )
    from perijove.model.records import (
        Account,
        Attempt,
        Blocker,
        BlockerKind,
        Capabilities,
        Endpoint,
        Gpu,
        Job,
        JobEvent,
        Machine,
        Node,
        NodeState,
        Outcome,
        Reason,
        ReasonCode,
        Slot,
        Stats,
    )
    from perijove.model.runs import (
        Cause,
        CauseKind,
        Output,
        ResultRecord,
        Run,
        StepRun,
        StepState,
    )
    from perijove.model.spec import JobOptions, JobSpec, Kind
    from perijove.model.states import ENDED, TRANSITIONS, InvalidTransitionError, State, check_transition
    from perijove.model.validation import field_errors, parse_spec, parse_specs, parse_workflow
    from perijove.model.values import (
        ArrayRange,
        Dependency,
        DependencyType,
        GpuRequest,
        RetryCause,
        SecretPlace,
        SignalRequest,
        VolumeRequest,
    )
    from perijove.model.workflow import Step, Workflow

__all__ = [
    "ENDED",
    "TRANSITIONS",
    "Account",
    "Announcement",
    "ArrayRange",
    "Attempt",
    "AuditEntry",
    "Blocker",
    "BlockerKind",
    "Budget",
    "Capabilities",
    "Cause",
    "CauseKind",
    "Condition",
    "ConflictError",
    "Dependency",
    "DependencyType",
    "Endpoint",
    "ErrorCode",
    "FieldError",
    "ForbiddenError",
    "Gpu",
    "GpuRequest",
    "InvalidSpecError",
    "InvalidTransitionError",
    "Invitation",
    "Job",
    "JobEvent",
    "JobOptions",
    "JobSpec",
    "Kind",
    "LinkedIdentity",
    "Machine",
    "Node",
    "NodeState",
    "NotFoundError",
    "OperatorError",
    "Outcome",
    "Output",
    "Parameter",
    "PerijoveError",
    "Reason",
    "ReasonCode",
    "Reference",
    "ResultRecord",
    "RetryCause",
    "Run",
    "Scope",
    "SecretName",
    "SecretPlace",
    "SignalRequest",
    "Slot",
    "SshKey",
    "State",
    "Stats",
    "Step",
    "StepRun",
    "StepState",
    "Token",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "User",
    "UserError",
    "UserKind",
    "UserState",
    "VolumeRequest",
    "Workflow",
    "check_transition",
    "field_errors",
    "format_duration",
    "format_size",
    "parameter_values",
    "parse_duration",
    "parse_size",
    "parse_spec",
    "parse_specs",
    "parse_workflow",
]

_HOMES = {
    "errors": (
        "ConflictError",
        "ErrorCode",
        "FieldError",
        "ForbiddenError",
        "InvalidSpecError",
        "NotFoundError",
        "OperatorError",
        "PerijoveError",
        "TooLargeError",
        "UnauthorizedError",
        "UnavailableError",
        "UserError",
    ),
    "people": (
        "Announcement",
        "AuditEntry",
        "Budget",
        "Invitation",
        "LinkedIdentity",
        "Scope",
        "SecretName",
        "SshKey",
        "Token",
        "User",
        "UserKind",
        "UserState",
    ),
    "quantities": (
        "format_duration",
        "format_size",
        "parse_duration",
        "parse_size",
    ),
    "records": (
        "Account",
        "Attempt",
        "Blocker",
        "BlockerKind",
        "Capabilities",
        "Endpoint",
        "Gpu",
        "Job",
        "JobEvent",
        "Machine",
        "Node",
        "NodeState",
        "Outcome",
        "Reason",
        "ReasonCode",
        "Slot",
        "Stats",
    ),
    "parameters": (
        "Parameter",
        "parameter_values",
    ),
    "places": (
        "Condition",
        "Reference",
    ),
    "runs": (
        "Cause",
        "CauseKind",
        "Output",
        "ResultRecord",
        "Run",
        "StepRun",
        "StepState",
    ),
    "spec": (
        "JobOptions",
        "JobSpec",
        "Kind",
    ),
    "states": (
        "ENDED",
        "TRANSITIONS",
        "InvalidTransitionError",
        "State",
        "check_transition",
    ),
    "validation": (
        "field_errors",
        "parse_spec",
        "parse_specs",
        "parse_workflow",
    ),
    "values": (
        "ArrayRange",
        "Dependency",
        "DependencyType",
        "GpuRequest",
        "RetryCause",
        "SecretPlace",
        "SignalRequest",
        "VolumeRequest",
    ),
    "workflow": (
        "Step",
        "Workflow",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
