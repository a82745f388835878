"""Images as the policy has them: a catalogue with names, and rules about all others."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from perijove.model.values import Title, Word
from perijove_hub.policy.limits import Part
from perijove_hub.policy.patterns import pattern
from perijove_hub.policy.runenvs import Named, parse_named
from perijove_hub.policy.who import EVERYBODY, Audience
from perijove_spawners.references import DIGEST, Reference, pinned

Pull = Literal["missing", "always", "never"]


def _text(value: Any) -> Any:
    """YAML reads 2020 and 3.12 as numbers."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if plain else value


Version = Annotated[
    str, BeforeValidator(_text), StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+]{0,63}$")
]
Platform = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?$")]


class ImageEntry(Audience):
    """An image of the catalogue, which jobs may ask for by its name."""

    image: Annotated[str, StringConstraints(max_length=512)]
    description: Title = ""
    default: bool = False
    """Of jobs that name none; with `projects`, of those projects' jobs."""
    pull: Pull | None = None
    """When the node asks the registry for it."""
    digest: str | None = None
    """What is run, whatever the tag means meanwhile."""
    runenv: str | None = None
    """The environment that it holds, ``NAME-VERSION``."""
    features: dict[Word, Version] = {}
    """What else it holds, with its version."""
    platforms: list[Platform] = Field(default=[], max_length=20)
    """``linux/amd64`` and so on; it is not said where it runs when empty."""

    @field_validator("image")
    @classmethod
    def _is_reference(cls, value: str) -> str:
        if Reference.parse(value).is_archive:
            raise ValueError("images that came as archives belong to who brought them")
        return value

    @field_validator("digest")
    @classmethod
    def _is_digest(cls, value: str | None) -> str | None:
        if value is not None and not DIGEST.fullmatch(value):
            raise ValueError("must be sha256: and 64 hexadecimal digits")
        return value

    @field_validator("runenv")
    @classmethod
    def _has_version(cls, value: str | None) -> str | None:
        if value is not None and parse_named(value).version is None:
            raise ValueError("must be NAME-VERSION, such as COBOL-42")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.features and self.runenv is None:
            raise ValueError("features are those of a runenv; give it too")
        own = Reference.parse(self.image).digest
        if own and self.digest and own != self.digest:
            raise ValueError("image and digest name two digests; leave out one of them")
        return self

    @property
    def reference(self) -> str:
        """What jobs that ask for it get."""
        return pinned(self.image, self.digest) if self.digest else self.image

    @property
    def environment(self) -> Named | None:
        """Its runenv."""
        return parse_named(self.runenv) if self.runenv else None

    @property
    def for_projects(self) -> bool:
        """Whether it is limited to projects."""
        return EVERYBODY not in self.projects


def _rule(value: Any) -> Any:
    return {"image": value} if isinstance(value, str) else value


class ImageRule(Part):
    """Images that may be asked for by their references; written as a pattern alone, too."""

    image: Annotated[str, StringConstraints(max_length=512)]
    """A pattern; see :func:`perijove_hub.policy.patterns.pattern`."""
    pull: Pull | None = None

    @field_validator("image")
    @classmethod
    def _is_pattern(cls, value: str) -> str:
        pattern(value)
        return value


Rules = list[Annotated[ImageRule, BeforeValidator(_rule)]]


class Convention(Audience):
    """Where images lie that are named after what they hold.

    ``COBOL-42`` with ``NX-2020`` is REGISTRY/PREFIXcobol-42-nx-2020, all in lower case.
    """

    prefix: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._/-]*$", max_length=128)]
    registry: Annotated[str, StringConstraints(max_length=256)] = ""
    """Host and path before it."""
    tag: Annotated[str, StringConstraints(pattern=r"^\w[\w.-]{0,127}$")] = "latest"
    pull: Pull | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        Reference.parse(self.image_of(Named("a", "1"), None))
        return self

    def image_of(self, runenv: Named, feature: Named | None) -> str:
        """The image that holds these, of which the versions are known."""
        parts = [part for one in (runenv, feature) if one for part in (one.name, one.version or "")]
        name = f"{self.prefix}{'-'.join(parts)}".lower()
        return f"{f'{self.registry}/' if self.registry else ''}{name}:{self.tag}"

    def spells(self, reference: Reference) -> bool:
        """Whether an image is called as this convention calls images."""
        some = Reference.parse(self.image_of(Named("a", "1"), None)).name
        return reference.name.startswith(some.removesuffix("a-1")) and reference.tag == self.tag


def default_errors(images: dict[str, ImageEntry]) -> list[tuple[str, str]]:
    """Names of images that cannot be the default too, and why."""
    wrong: list[tuple[str, str]] = []
    seen: dict[str, str] = {}
    for name, entry in images.items():
        for scope in (entry.projects if entry.for_projects else [EVERYBODY]) if entry.default else []:
            if (other := seen.setdefault(scope, name)) != name:
                whose = "the site" if scope == EVERYBODY else f"project {scope}"
                wrong.append((name, f"{other} is the default of {whose} already"))
    return wrong
