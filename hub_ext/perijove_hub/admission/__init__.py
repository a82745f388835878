"""Spec and site -> the spec made complete, or every error in it that can be known before it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from perijove.model import FieldError, InvalidSpecError, Job, JobSpec
from perijove_hub.accounts import Identity
from perijove_hub.admission.fields import (
    NOT_YET,
    dependency_errors,
    expand,
    image_errors,
    network_errors,
    path_errors,
    targets,
    unsupported,
)
from perijove_hub.admission.files import archive_errors, file_errors, output_errors, program_errors
from perijove_hub.admission.fit import fit_errors
from perijove_hub.admission.rights import (
    choose_partition,
    project_errors,
    reservation_errors,
    signal_errors,
    volume_errors,
)
from perijove_hub.admission.site import Asker, Site, shape_of
from perijove_hub.policy.times import time_limit_of

__all__ = ["NOT_YET", "Admitted", "Asker", "Site", "admit", "expand", "targets"]


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the queue gets: nothing is left to be found wrong."""

    spec: JobSpec
    launcher: str
    partition: str | None = None


def admit(
    spec: JobSpec,
    asker: Asker,
    identity: Identity,
    site: Site,
    *,
    now: float,
    owns: Callable[[str], bool] = lambda _digest: True,
    known: Mapping[int, Job],
) -> Admitted:
    """Check `spec` against the site.

    `owns` tells whether the user uploaded a file of that digest, `known` are the user's jobs that it may wait
    for. Raises :class:`InvalidSpecError` with one :class:`FieldError` for each thing wrong, and
    :class:`UnavailableError` while no node is known.
    """
    launcher, settings = site.launcher(spec), site.settings
    if spec.project is None and asker.default_project is not None:
        spec = spec.model_copy(update={"project": asker.default_project})
    chosen = choose_partition(spec, site, asker)
    limit, too_long = time_limit_of(spec, site.policy, chosen.partition, longest=settings.max_time)
    errors: list[FieldError] = [
        *unsupported(spec, launcher),
        *image_errors(spec, launcher, settings),
        *network_errors(spec, launcher, settings),
        *archive_errors(spec, launcher),
        *program_errors(spec, launcher),
        *output_errors(spec, launcher, targets(spec, identity, settings)),
        *project_errors(spec, asker),
        *volume_errors(spec, site, asker),
        *path_errors(spec, identity, launcher, settings),
        *chosen.errors,
        *([too_long] if too_long else signal_errors(spec, limit)),
        *(reserved := reservation_errors(spec, limit, site.policy, asker, now)),
        *file_errors(spec, owns),
        *dependency_errors(spec, known),
    ]
    if not chosen.errors and not any(error.field == "reservation" for error in reserved):
        errors += fit_errors(shape_of(spec, launcher, chosen.partition), site)
    if errors:
        raise InvalidSpecError(errors=errors)
    changes: dict[str, object] = {}
    if launcher.containers and spec.image is None:
        changes["image"] = settings.default_image
    if limit != spec.time_limit:
        changes["time_limit"] = limit
    if chosen.partition != spec.partition:
        changes["partition"] = chosen.partition
    return Admitted(spec.model_copy(update=changes) if changes else spec, launcher.name, chosen.partition)
