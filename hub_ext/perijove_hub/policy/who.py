"""Whom a list of names means."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from perijove_hub.policy.limits import Part

EVERYBODY = "*"
PROJECT = "project:"
"""What an entry begins with that means the jobs of a project."""


def is_among(user: str, names: Iterable[str], groups: frozenset[str] = frozenset()) -> bool:
    """Whether `names`, which may hold patterns and ``@GROUP``, mean `user`."""
    return any(entry[1:] in groups if entry.startswith("@") else fnmatchcase(user, entry) for entry in names)


def are_meant(
    names: Iterable[str], user: str, project: str | None, groups: frozenset[str] = frozenset()
) -> bool:
    """The same, where ``project:NAME`` also means all jobs of that project.

    An entry is of one sort only: no name of a user can be written as another sort's entry is.
    """
    people = []
    for entry in names:
        if not entry.startswith(PROJECT):
            people.append(entry)
        elif project is not None and fnmatchcase(project, entry.removeprefix(PROJECT)):
            return True
    return is_among(user, people, groups)


class Audience(Part):
    """For whom something is."""

    users: list[str] = [EVERYBODY]
    """Names, patterns or ``@GROUP``; ``*``: it is limited to no users."""
    projects: list[str] = [EVERYBODY]
    """Whose jobs may use it; ``*``: it is limited to no projects. Where both are limited, either suffices."""

    def admits(self, user: str, project: str | None, groups: frozenset[str] = frozenset()) -> bool:
        """Whether it is for jobs of `user` in `project`."""
        limits = []
        if EVERYBODY not in self.users:
            limits.append(is_among(user, self.users, groups))
        if EVERYBODY not in self.projects:
            limits.append(project is not None and is_among(project, self.projects))
        return any(limits) if limits else True
