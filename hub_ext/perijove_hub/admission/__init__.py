"""Spec and site -> the spec made complete, or every error in it that can be known before it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from perijove.model import FieldError, InvalidSpecError, Job, JobSpec
from perijove_hub.accounts import Identity
from perijove_hub.admission.fields import NOT_YET, dependency_errors, path_errors, unsupported
from perijove_hub.admission.files import archive_errors, file_errors, output_errors, program_errors
from perijove_hub.admission.fit import fit_errors
from perijove_hub.admission.grants import grant_errors, network_errors
from perijove_hub.admission.guests import for_guest, guest_errors
from perijove_hub.admission.images import choose_image
from perijove_hub.admission.rights import (
    choose_partition,
    project_errors,
    reservation_errors,
    signal_errors,
)
from perijove_hub.admission.secrets import secret_errors
from perijove_hub.admission.site import Asker, Site, shape_of
from perijove_hub.admission.volumes import choose_volumes
from perijove_hub.policy.times import time_limit_of

__all__ = ["NOT_YET", "Admitted", "Asker", "Site", "admit"]


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
    launcher = site.launcher(spec)
    if spec.project is None and asker.default_project is not None:
        spec = spec.model_copy(update={"project": asker.default_project})
    spec = for_guest(spec, launcher, asker.guest)
    outside = project_errors(spec, asker)
    # What a project may have, only those in it are told.
    own = spec.model_copy(update={"project": None}) if outside else spec
    image = choose_image(own, launcher, site, asker)
    volumes = choose_volumes(own, identity, site, asker, mounted=launcher.containers)
    if image.constraints:
        spec = spec.model_copy(update={"constraints": {**spec.constraints, **image.constraints}})
    chosen = choose_partition(spec, site, asker)
    limit, too_long = time_limit_of(spec, site.policy, chosen.partition, longest=site.settings.max_time)
    errors: list[FieldError] = [
        *unsupported(spec, launcher),
        *image.errors,
        *grant_errors(own, launcher, asker),
        *network_errors(own, launcher, site, asker),
        *guest_errors(spec, launcher, asker.guest),
        *archive_errors(spec, launcher),
        *program_errors(spec, launcher),
        *output_errors(spec, launcher, volumes.targets),
        *outside,
        *volumes.errors,
        *secret_errors(spec, asker),
        *path_errors(spec, launcher, volumes.targets),
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
    found = {"image": image.image, "time_limit": limit, "partition": chosen.partition}
    changes = {name: value for name, value in found.items() if value != getattr(spec, name)}
    return Admitted(spec.model_copy(update=changes) if changes else spec, launcher.name, chosen.partition)
