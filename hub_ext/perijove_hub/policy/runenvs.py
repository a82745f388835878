"""Environments by name and version, and which image or node has what a job requires.

A job names a ``runenv`` and, in the order of its preference, features that it requires: the first that can
be had is taken. Words and rules are pCluster's: of a runenv the version asked for or a later one will
do, of a feature the version asked for, and of either any when none is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_VERSIONED = re.compile(r"(?P<name>.+)-(?P<version>[vV]?[0-9][A-Za-z0-9._+]*)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PIECE = re.compile(r"[0-9]+|[a-z]+")


class Named(NamedTuple):
    """An environment or a feature, and which version of it; None for any."""

    name: str
    version: str | None = None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}-{self.version}"

    def means(self, other: Named) -> bool:
        """Whether both have one name; upper and lower case are the same."""
        return self.name.casefold() == other.name.casefold()


def parse_named(text: str) -> Named:
    """``COBOL-42`` or ``COBOL``; a version begins with a digit, or v and a digit. Raises ``ValueError``."""
    match = _VERSIONED.fullmatch(text)
    named = Named(match["name"], match["version"]) if match else Named(text)
    if not _NAME.fullmatch(named.name):
        raise ValueError("must be NAME or NAME-VERSION, such as COBOL-42")
    return named


def order(version: str) -> tuple[tuple[int, int, str], ...]:
    """What versions are compared by: numbers by their value, words by the alphabet and before numbers.

    ``v42`` is ``42``, and 42 comes before 42.1: what is longer is later.
    """
    text = version.lower()
    text = text[1:] if re.match(r"v[0-9]", text) else text
    return tuple(
        (1, int(piece), "") if piece.isdecimal() else (0, 0, piece) for piece in _PIECE.findall(text)
    )


@dataclass(frozen=True, slots=True)
class Offer:
    """Something that holds an environment: an image of the catalogue, or nodes with equal labels."""

    runenv: Named
    features: tuple[Named, ...] = ()
    image: str | None = None
    """None: no image, but nodes that bear `labels`."""
    labels: tuple[tuple[str, str], ...] = ()
    os: str = "linux"
    node: str | None = None

    def __str__(self) -> str:
        return " with ".join(map(str, (self.runenv, *self.features)))


@dataclass(frozen=True, slots=True)
class Wish:
    """What a job asks for."""

    runenv: Named | None
    require: tuple[Named, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """What it gets."""

    offer: Offer
    feature: Named | None = None
    """The one taken of those required."""


@dataclass(frozen=True, slots=True)
class Unsatisfied:
    """That it can get nothing."""

    field: str
    """``runenv`` or ``require``."""
    message: str


ByConvention = Callable[[Named, Named | None], str]


@dataclass(frozen=True, slots=True)
class Conventional:
    """Images by the convention of their names: exact, since nobody can ask which there are."""

    image_of: ByConvention
    present: Callable[[str], bool] = field(default=lambda _image: False)
    """Whether some node has the image."""

    def match(self, wish: Wish) -> Match | None:
        """The first that a node has; else the first that can be spelled."""
        if wish.runenv is None or wish.runenv.version is None:
            return None
        spelled = [one for one in wish.require if one.version is not None] if wish.require else [None]
        made = [
            Match(Offer(wish.runenv, (one,) if one else (), self.image_of(wish.runenv, one)), one)
            for one in spelled
        ]
        there = (one for one in made if one.offer.image and self.present(one.offer.image))
        return next(there, made[0] if made else None)


def choose(
    wish: Wish, offers: Sequence[Offer], convention: Conventional | None = None
) -> Match | Unsatisfied:
    """The offer for `wish`: by the catalogue if any there will do, else by the convention.

    Of several, the one with the version asked for; then the nearest later one, or the newest when none was
    asked for.
    """
    able = [offer for offer in offers if _will_do(wish.runenv, offer.runenv)]
    able.sort(key=lambda offer: order(offer.runenv.version or ""))
    if wish.runenv is None or wish.runenv.version is None:
        able.reverse()
    if able and not wish.require:
        # what holds no more than was asked for, among equals
        first = order(able[0].runenv.version or "")
        equal = [offer for offer in able if order(offer.runenv.version or "") == first]
        return Match(min(equal, key=lambda offer: len(offer.features)))
    for wanted in wish.require:
        if found := _with_feature(wanted, able, wish.runenv is not None):
            return found
    if convention is not None and (spelled := convention.match(wish)):
        return spelled
    return _nothing(wish, offers, able, convention is not None)


def _will_do(wanted: Named | None, has: Named) -> bool:
    if wanted is None:
        return True
    later = wanted.version is None or order(has.version or "") >= order(wanted.version)
    return wanted.means(has) and later


def _with_feature(wanted: Named, able: Sequence[Offer], nearest: bool) -> Match | None:
    """The newest version of the feature when any will do; `nearest`: of the first runenv that has it."""
    found = [
        Match(offer, feature)
        for offer in able
        for feature in offer.features
        if wanted.means(feature)
        and (wanted.version is None or order(feature.version or "") == order(wanted.version))
    ]
    if nearest and found:
        first = order(found[0].offer.runenv.version or "")
        found = [one for one in found if order(one.offer.runenv.version or "") == first]
    # max() keeps the first of equals, and so the order of the offers
    return max(found, key=lambda one: order(one.feature.version or "") if one.feature else (), default=None)


def _nothing(wish: Wish, offers: Sequence[Offer], able: Sequence[Offer], spelled: bool) -> Unsatisfied:
    hint = "; by its name's convention an image is found when versions are given" if spelled else ""
    if not able:
        same = [offer for offer in offers if wish.runenv and wish.runenv.means(offer.runenv)]
        known = listed(str(offer.runenv) for offer in same or offers)
        what = f"no version of {wish.runenv.name} will do" if same and wish.runenv else "it is not there"
        return Unsatisfied("runenv", f"{what}; there are: {known}{hint}")
    known = listed(str(feature) for offer in able for feature in offer.features)
    where = f" with {wish.runenv}" if wish.runenv else ""
    return Unsatisfied("require", f"none of these is there{where}; there are: {known}{hint}")


def listed(names: Iterable[str]) -> str:
    """Names for people, the newest versions first."""
    return ", ".join(newest_first(dict.fromkeys(names))[:20]) or "none"


def newest_first(names: Iterable[str]) -> list[str]:
    """By name, and of one name the newest version first."""
    parsed = sorted((parse_named(name) for name in names), key=lambda one: order(one.version or ""))
    parsed.reverse()
    return [str(one) for one in sorted(parsed, key=lambda one: one.name.casefold())]


LABEL, FEATURE_LABEL = "runenv.", "feature."
"""What the labels of nodes begin with that say what is installed there: ``runenv.COBOL=42``."""


def of_labels(name: str, labels: Iterable[tuple[str, str]]) -> list[Offer]:
    """What a node with these labels offers; each of its runenvs with all of its features."""
    pairs = [(key, value) for key, value in labels if value]
    system = next((value for key, value in pairs if key == "os"), "linux")
    features = [(k, v) for k, v in pairs if k.startswith(FEATURE_LABEL) and len(k) > len(FEATURE_LABEL)]
    return [
        Offer(
            Named(key.removeprefix(LABEL), value),
            tuple(Named(k.removeprefix(FEATURE_LABEL), v) for k, v in features),
            labels=((key, value), *features),
            os=system,
            node=name,
        )
        for key, value in pairs
        if key.startswith(LABEL) and len(key) > len(LABEL)
    ]
