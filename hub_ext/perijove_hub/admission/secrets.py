"""Whether a job may have the secrets that it names, and under the names of variables that it gives them."""

from __future__ import annotations

import re
from collections import Counter

from perijove.model import FieldError, JobSpec
from perijove.model.values import IDENTIFIER
from perijove_hub.admission.site import Asker

_OURS = "PERIJOVE_"


def secret_errors(spec: JobSpec, asker: Asker) -> list[FieldError]:
    """Secrets that the user and the job's project do not have; variables that cannot be."""
    if not spec.secrets:
        return []
    held = asker.held(asker.name, spec.project)
    errors = []
    for name in spec.secrets:
        if name not in held:
            known = ", ".join(sorted(held)[:20]) or "none"
            of = f" or project {spec.project}" if spec.project else ""
            text = f"there is no such secret of yours{of}; there are: {known}"
            errors.append(FieldError(f"secrets.{name}", name, text))
    variables = {name: place.variable or name for name, place in spec.secrets.items() if place.place == "env"}
    times = Counter(variables.values())
    for name, variable in variables.items():
        if text := _wrong(variable, times[variable], spec):
            errors.append(FieldError(f"secrets.{name}", str(spec.secrets[name]), text))
    return errors


def _wrong(variable: str, times: int, spec: JobSpec) -> str:
    if not re.fullmatch(IDENTIFIER.strip("^$"), variable):
        return f"{variable} cannot be the name of a variable; write env:NAME, or file"
    if variable.startswith(_OURS):
        return f"variables that begin with {_OURS} are Perijove's own; write env:NAME with another"
    if times > 1:
        return f"{times} secrets would be the variable {variable}"
    if variable in spec.env:
        return f"the variable {variable} is in env, too"
    return ""
