"""What settings and policy list together: images and volumes, ready to be asked about often."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property

from perijove_hub.policy.document import Policy
from perijove_hub.policy.images import ImageEntry, ImageRule
from perijove_hub.policy.patterns import Pattern, loose_pattern, pattern
from perijove_hub.policy.runenvs import Named, Offer
from perijove_hub.policy.volumes import VolumeEntry
from perijove_hub.settings import Settings, VolumeSetting
from perijove_spawners.launcher import ARCHIVE
from perijove_spawners.references import Reference

PULLS_KEPT = 10_000
"""Answers about images that are remembered."""


class Lists:
    """It keeps its answers: make a new one when settings or policy change.

    An image may be run if the catalogue lets it, or a rule of the project or of the site, or the setting
    ``images``. Of two volumes with one name that of the settings is meant.
    """

    def __init__(self, settings: Settings, policy: Policy) -> None:
        self.settings, self.policy = settings, policy
        self.volumes: dict[str, VolumeEntry] = {
            **policy.volumes,
            **{name: _as_entry(volume) for name, volume in settings.volumes.items()},
        }
        self._named: dict[tuple[str, str], list[ImageEntry]] = defaultdict(list)
        for entry in policy.images.values():
            self._named[Reference.parse(entry.image).wanted].append(entry)
        self._pulls: dict[tuple[str, str | None], str | None] = {}

    @cached_property
    def _of_settings(self) -> list[Pattern]:
        return [loose_pattern(text) for text in self.settings.allowed_images]

    @cached_property
    def offers(self) -> list[tuple[ImageEntry, Offer]]:
        """Images of the catalogue that hold an environment."""
        return [
            (entry, Offer(runenv, tuple(map(Named._make, entry.features.items())), entry.reference))
            for entry in self.policy.images.values()
            if (runenv := entry.environment) is not None
        ]

    def entries(self, reference: Reference) -> list[ImageEntry]:
        """Images of the catalogue that `reference` means; its digest, if it has one, is theirs."""
        return [
            entry
            for entry in self._named.get(reference.wanted, ())
            if reference.digest in {None, entry.digest, Reference.parse(entry.image).digest}
        ]

    def allows(self, reference: Reference | None, project: str | None) -> bool:
        """Whether a rule lets jobs of `project` run it; None for an image brought as an archive."""
        patterns = [*self._of_settings, *(pattern(rule.image) for rule in self._rules(project))]
        if reference is None:
            return any(one.archives or one.text in {"*", "**"} for one in patterns)
        return any(one.meets(reference) for one in patterns)

    def patterns(self, project: str | None) -> list[str]:
        """Rules for jobs of `project`, for people."""
        return [*(rule.image for rule in self._rules(project)), *self.settings.allowed_images]

    def _rules(self, project: str | None) -> Iterator[ImageRule]:
        if project is not None and (found := self.policy.projects.get(project)) is not None:
            yield from found.images
        yield from self.policy.allowed_images

    def pull_of(self, image: str | None, project: str | None) -> str | None:
        """When a node asks the registry for the image of a job of `project`; None: as it has it."""
        if image is None or image.startswith(ARCHIVE):
            return None
        key = image, project
        if key not in self._pulls:
            if len(self._pulls) >= PULLS_KEPT:
                self._pulls.clear()
            self._pulls[key] = self._pull_of(image, project)
        return self._pulls[key]

    def _pull_of(self, image: str, project: str | None) -> str | None:
        try:
            reference = Reference.parse(image)
        except ValueError:
            return None
        for entry in self.entries(reference):
            if entry.pull is not None:
                return entry.pull
        for rule in self._rules(project):
            if rule.pull is not None and pattern(rule.image).meets(reference):
                return rule.pull
        convention = self.policy.images_by_convention
        if convention is not None and convention.spells(reference):
            return convention.pull
        return None


def _as_entry(volume: VolumeSetting) -> VolumeEntry:
    # Not validated: an operator may show jobs what an administrator of the policy may not.
    return VolumeEntry.model_construct(
        source=volume.source, target=volume.target, read_only=volume.read_only, users=volume.users
    )
