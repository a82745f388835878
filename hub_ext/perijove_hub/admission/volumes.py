"""Which directories a job sees, and where: names of volumes -> paths on the node and in the job."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perijove.model import FieldError, JobSpec, OperatorError, VolumeRequest
from perijove_hub.accounts import Identity
from perijove_hub.admission.site import Asker, Site
from perijove_hub.policy.volumes import HOME, VolumeEntry, same_places, wrong_source, wrong_target
from perijove_spawners.launcher import Mount

_UNFIT = frozenset("/:,\\")
"""What a name must not hold that becomes a part of a path."""


class UnplaceableError(ValueError):
    """A volume has no path for this job."""


@dataclass(frozen=True, slots=True)
class Whose:
    """What stands for the words in braces of a volume's paths."""

    user: str
    project: str | None
    identity: Identity


def placed(name: str, volume: VolumeEntry, whose: Whose) -> tuple[str, str]:
    """Source and target of a volume. Raises :class:`UnplaceableError` that says why it has none."""
    source, target = (
        _filled(volume.source, whose, whose.identity.home_source),
        _filled(volume.target, whose, whose.identity.account.home),
    )
    # What a name makes of a path was not seen when the policy was read.
    if "{" in volume.source + volume.target and (said := wrong_source(source) or wrong_target(target)):
        raise UnplaceableError(f"volume {name} cannot be had with your names in its paths: {said}")
    return source, target


def _filled(path: str, whose: Whose, home: str) -> str:
    if "{" not in path:
        return path
    if "{project}" in path and whose.project is None:
        raise UnplaceableError(
            "it is a folder of the job's project, and this job is in none; name one with project"
        )
    for part in (whose.user, whose.project or "x"):
        if part in {"", ".", ".."} or _UNFIT & set(part) or not part.isprintable():
            raise UnplaceableError(f"{part!r} cannot be a part of its path")
    path = path.replace("{user}", whose.user).replace("{project}", whose.project or "")
    return path.replace("{home}", home)


@dataclass(frozen=True, slots=True)
class ChosenVolumes:
    """Where a job's volumes are, as it sees them, and what is wrong with them."""

    targets: tuple[str, ...] = ()
    errors: tuple[FieldError, ...] = ()


def volumes_of(site: Site, asker: Asker, project: str | None) -> list[str]:
    """Volumes that jobs of the user in `project` may ask for, beside ``home``."""
    mine = {
        name
        for name, volume in site.lists.volumes.items()
        if volume.admits(asker.name, project, asker.groups)
    }
    rules = asker.policy.projects.get(project or "")
    if rules is not None:
        mine |= {name for name in rules.volumes if name in site.lists.volumes}
    return sorted(mine)


def choose_volumes(
    spec: JobSpec, identity: Identity, site: Site, asker: Asker, *, mounted: bool
) -> ChosenVolumes:
    """See :class:`ChosenVolumes`; asked once for each list of volumes and project of a request.

    `mounted`: whether the launcher mounts them; plain processes see the node's own paths.
    """
    if spec.sealed:
        return ChosenVolumes()
    key = tuple((request.name, request.read_only) for request in spec.volumes), spec.project, mounted
    known: ChosenVolumes | None = asker.volumes.get(key)
    if known is None:
        whose = Whose(asker.name, spec.project, identity)
        known = asker.volumes[key] = _choose(spec.volumes, whose, site, asker, mounted=mounted)
    return known


def _choose(
    wanted: Sequence[VolumeRequest], whose: Whose, site: Site, asker: Asker, *, mounted: bool
) -> ChosenVolumes:
    mine = volumes_of(site, asker, whose.project)
    targets: list[tuple[str, str]] = []
    errors = []
    for name in (request.name for request in wanted):
        if name == HOME:
            targets.append((name, whose.identity.account.home))
        elif name not in mine:
            known = ", ".join([HOME, *mine])
            errors.append(FieldError("volumes", name, f"there is no such volume for you; you have: {known}"))
        else:
            try:
                targets.append((name, placed(name, site.lists.volumes[name], whose)[1]))
            except UnplaceableError as error:
                errors.append(FieldError("volumes", name, str(error)))
    for name, other in same_places(targets) if mounted else ():
        text = f"asked for twice: {name}" if name == other else _clash(name, other, dict(targets))
        errors.append(FieldError("volumes", name, text))
    return ChosenVolumes(tuple(target for _, target in targets), tuple(errors))


def _clash(name: str, other: str, targets: Mapping[str, str]) -> str:
    return f"it is seen at {targets[name]}, and {other} at {targets[other]}: leave out one of the two"


def mounts_of(
    spec: JobSpec, owner: str, identity: Identity, volumes: Mapping[str, VolumeEntry]
) -> tuple[Mount, ...]:
    """The volumes asked for, none of a sealed job; a request can lower a volume's mode and never raise it.

    Root in a container would write to them as nobody else could: it only reads them. Raises
    :class:`OperatorError` for what is on the list no more.
    """
    mounts = []
    whose = Whose(owner, spec.project, identity)
    for request in () if spec.sealed else spec.volumes:
        lowered = request.read_only or spec.user == "root"
        if request.name == HOME:
            mounts.append(Mount(identity.home_source, identity.account.home, lowered, HOME))
            continue
        volume = volumes.get(request.name)
        if volume is None:
            raise OperatorError(f"volume {request.name} is on the site's list no more")
        try:
            source, target = placed(request.name, volume, whose)
        except UnplaceableError as error:
            raise OperatorError(f"volume {request.name}: {error}") from None
        mounts.append(Mount(source, posixpath.normpath(target), lowered or volume.read_only, request.name))
    return tuple(mounts)
