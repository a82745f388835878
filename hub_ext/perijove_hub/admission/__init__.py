"""Spec and site -> the spec made complete, or every error in it that can be known before it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from perijove.model import FieldError, InvalidSpecError, Job, JobSpec
from perijove_hub.admission.fields import (
    NOT_YET,
    dependency_errors,
    expand,
    file_errors,
    image_errors,
    network_errors,
    path_errors,
    targets,
    unsupported,
)
from perijove_hub.admission.fit import fit_errors
from perijove_hub.admission.rights import (
    choose_partition,
    project_errors,
    reservation_errors,
    signal_errors,
    time_limit,
    volume_errors,
)
from perijove_hub.admission.site import Asker, Site, shape_of

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
    chosen = choose_partition(spec, site, asker)
    time = time_limit(spec, site, chosen.partition)
    errors: list[FieldError] = [
        *unsupported(spec, launcher),
        *image_errors(spec, launcher, settings),
        *network_errors(spec, launcher, settings),
        *project_errors(spec, site.policy, asker),
        *volume_errors(spec, site, asker),
        *path_errors(spec, asker.identity, launcher, settings),
        *chosen.errors,
        *time.errors,
        *(signal_errors(spec, time.limit) if not time.errors else ()),
        *(reserved := reservation_errors(spec, time.limit, site.policy, asker, now)),
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
    if time.limit != spec.time_limit:
        changes["time_limit"] = time.limit
    if chosen.partition != spec.partition:
        changes["partition"] = chosen.partition
    return Admitted(spec.model_copy(update=changes) if changes else spec, launcher.name, chosen.partition)
