"""Which image a job gets, or which nodes have what it requires: by name, by reference, or by its runenv."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from perijove.model import Capabilities, FieldError, JobSpec
from perijove_hub.admission.site import Asker, Site
from perijove_hub.policy import runenvs
from perijove_hub.policy.images import ImageEntry
from perijove_hub.policy.runenvs import Conventional, Match, Named, Offer, Unsatisfied, Wish
from perijove_spawners.launcher import ARCHIVE
from perijove_spawners.references import Reference, written

KEPT = 10_000
"""Answers of one request that are remembered."""


@dataclass(frozen=True, slots=True)
class ChosenImage:
    """What a job runs in, or why it cannot."""

    image: str | None = None
    constraints: Mapping[str, str] = field(default_factory=dict)
    """Labels of nodes that have what was required, where there are no images."""
    errors: tuple[FieldError, ...] = ()


def choose_image(spec: JobSpec, launcher: Capabilities, site: Site, asker: Asker) -> ChosenImage:
    """See :class:`ChosenImage`; asked once for each image, runenv and project of a request."""
    labels = tuple(spec.constraints.items()) if spec.runenv or spec.require else ()
    key = launcher.name, spec.image, spec.runenv, tuple(spec.require), spec.project, labels
    known: ChosenImage | None = asker.images.get(key)
    if known is not None:
        return known
    if len(asker.images) >= KEPT:
        asker.images.clear()
    if spec.runenv or spec.require:
        made = _required(spec, launcher, site, asker)
    else:
        made = _named(spec, launcher, site, asker)
    asker.images[key] = made
    return made


def _wrong(name: str, value: str, text: str) -> ChosenImage:
    return ChosenImage(errors=(FieldError(name, value, text),))


# ---- by name or reference


def _named(spec: JobSpec, launcher: Capabilities, site: Site, asker: Asker) -> ChosenImage:
    if not launcher.containers:
        if spec.image is None:
            return ChosenImage()
        text = f"not supported by launcher {launcher.name}: it runs no images"
        return _wrong("image", spec.image, text)
    if spec.image is None:
        return ChosenImage(default_image(site, asker, spec.project))
    return _asked_for(spec.image, spec.project, site, asker)


def default_entry(site: Site, asker: Asker, project: str | None) -> tuple[str, ImageEntry] | None:
    """The default of the project's jobs in the catalogue, else of all; with its name."""
    mine = [
        (name, entry)
        for name, entry in site.policy.images.items()
        if entry.default and entry.admits(asker.name, project, asker.groups)
    ]
    return next((one for one in mine if one[1].for_projects), mine[0] if mine else None)


def default_image(site: Site, asker: Asker, project: str | None) -> str:
    """The image of jobs that name none."""
    found = default_entry(site, asker, project)
    return found[1].reference if found else site.settings.default_image


def _asked_for(text: str, project: str | None, site: Site, asker: Asker) -> ChosenImage:
    lists = site.lists
    entry = site.policy.images.get(text)
    if entry is not None and entry.admits(asker.name, project, asker.groups):
        return ChosenImage(entry.reference)
    reference = None
    if not text.startswith(ARCHIVE):
        try:
            reference = Reference.parse(text)
        except ValueError as error:
            return _wrong("image", text, str(error))
        if reference.is_archive:
            said = f"an image that came as an archive is named {ARCHIVE}sha256:..., by the archive's digest"
            return _wrong("image", text, said)
        for one in lists.entries(reference):
            if one.admits(asker.name, project, asker.groups):
                return ChosenImage(one.reference)
    if lists.allows(reference, project) or asker.granted("any_image", project):
        return ChosenImage(text if reference is None else written(text, reference))
    names = [
        name
        for name, one in sorted(site.policy.images.items())
        if one.admits(asker.name, project, asker.groups)
    ]
    # the setting's default for all is left out of what is told when the policy says more
    allowed = ", ".join([*names, *dict.fromkeys(lists.patterns(project))][:30]) or "none"
    where = f" for jobs of project {project}" if project else ""
    return _wrong("image", text, f"not on this site's list of images{where}; allowed: {allowed}")


# ---- by runenv


def _required(spec: JobSpec, launcher: Capabilities, site: Site, asker: Asker) -> ChosenImage:
    wish, errors = _wish(spec)
    if errors:
        return ChosenImage(errors=tuple(errors))
    if launcher.containers:
        found = runenvs.choose(wish, offers_of(site, asker, spec.project), _convention(spec, site, asker))
    else:
        found = runenvs.choose(wish, _on_nodes(spec, launcher, site))
    if isinstance(found, Unsatisfied):
        value = ", ".join(spec.require) if found.field == "require" else str(spec.runenv)
        return _wrong(found.field, value, found.message)
    if not launcher.containers:
        if spec.image is not None:
            text = f"not supported by launcher {launcher.name}: it runs no images"
            return _wrong("image", spec.image, text)
        return ChosenImage(constraints=_constraints(found))
    return _of_match(spec, found)


def _of_match(spec: JobSpec, found: Match) -> ChosenImage:
    image = found.offer.image or ""
    try:
        Reference.parse(image)
    except ValueError:
        return _wrong("runenv", str(spec.runenv), f"its image would be {image}, which no image can be named")
    # what was admitted may be submitted again as it was recorded
    if spec.image is not None and spec.image != image:
        text = f"an image or a runenv says what it runs in, not both; {spec.runenv or 'require'} is {image}"
        return _wrong("image", spec.image, text)
    return ChosenImage(image)


def _wish(spec: JobSpec) -> tuple[Wish, list[FieldError]]:
    errors, runenv, require = [], None, []
    if spec.runenv is not None:
        try:
            runenv = runenvs.parse_named(spec.runenv)
        except ValueError as error:
            errors.append(FieldError("runenv", spec.runenv, str(error)))
    for text in spec.require:
        try:
            require.append(runenvs.parse_named(text))
        except ValueError as error:
            errors.append(FieldError("require", text, str(error)))
    return Wish(runenv, tuple(require)), errors


def offers_of(site: Site, asker: Asker, project: str | None) -> list[Offer]:
    """What the catalogue has for jobs of the user in `project`."""
    return [offer for entry, offer in site.lists.offers if entry.admits(asker.name, project, asker.groups)]


def _convention(spec: JobSpec, site: Site, asker: Asker) -> Conventional | None:
    rule = site.policy.images_by_convention
    if rule is None or not rule.admits(asker.name, spec.project, asker.groups):
        return None
    return Conventional(rule.image_of, site.has_image)


def _on_nodes(spec: JobSpec, launcher: Capabilities, site: Site) -> list[Offer]:
    """What nodes with the launcher have by their labels, without those that the job's own labels exclude."""
    wanted = spec.constraints
    return [
        offer
        for offer in site.installed(launcher.name)
        if all(wanted.get(key, value) == value for key, value in offer.labels)
    ]


def _constraints(found: Match) -> dict[str, str]:
    feature: Named | None = found.feature
    return {
        key: value
        for key, value in found.offer.labels
        if key.startswith(runenvs.LABEL)
        or (feature is not None and key == f"{runenvs.FEATURE_LABEL}{feature.name}")
    }
