"""What admission knows: of the site, and of who asks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from perijove.model import Capabilities, FieldError, InvalidSpecError, JobSpec, Node, UnavailableError
from perijove_hub.admission.capacity import Capacity
from perijove_hub.admission.lists import Lists
from perijove_hub.policy.document import Policy
from perijove_hub.policy.grants import Grant
from perijove_hub.policy.guests import GuestTerms
from perijove_hub.policy.runenvs import Offer, of_labels
from perijove_hub.settings import Settings

SHAPES_KEPT = 20_000
"""Verdicts about sizes that are remembered."""


def _none(_owner: str, _project: str | None) -> Collection[str]:
    return ()


class Asker:
    """Whose the job will be, and what the policy grants them; looked up once for all jobs of a request.

    `groups`: those that a policy may name as ``@GROUP``. `guest`: what holds for one.
    """

    def __init__(
        self,
        policy: Policy,
        name: str,
        groups: frozenset[str] = frozenset(),
        guest: GuestTerms | None = None,
    ) -> None:
        self.policy, self.name, self.groups, self.guest = policy, name, groups, guest
        self._may_use: dict[tuple[str, str | None], bool] = {}
        self.held: Callable[[str, str | None], Collection[str]] = _none
        """Names of the secrets that jobs of a user in a project may have."""
        self.images: dict[Any, Any] = {}
        self.volumes: dict[Any, Any] = {}
        """What was found out for other jobs of the request."""

    @cached_property
    def projects(self) -> list[str]:
        """In which they may have jobs: as a member. Leading one is not enough."""
        return sorted(self.policy.projects_of(self.name, self.groups))

    @cached_property
    def default_project(self) -> str | None:
        """Of jobs that name none; of a guest the project that they were invited to."""
        if self.guest is not None and self.guest.project in self.projects:
            return self.guest.project
        return self.policy.project_of(self.name, self.groups)

    def may_use(self, partition: str, project: str | None) -> bool:
        """Whether their jobs of `project` may be in the partition, which need not exist."""
        key = (partition, project)
        if key not in self._may_use:
            known = partition in self.policy.partitions
            self._may_use[key] = known and self.policy.may_use(partition, self.name, project, self.groups)
        return self._may_use[key]

    def granted(self, grant: Grant, project: str | None) -> bool | None:
        """Whether the policy grants it to their jobs of `project`; None when it does not say."""
        guest = self.guest is not None or self.policy.user(self.name).guest
        return self.policy.grants.say(grant, self.name, project, self.groups, guest=guest)

    def partitions(self, project: str | None) -> list[str]:
        """Partitions that jobs of `project` may be in."""
        return sorted(name for name in self.policy.partitions if self.may_use(name, project))


class Site:
    """Settings, policy and nodes as they are now. It keeps its answers: make a new one when they change."""

    def __init__(self, settings: Settings, policy: Policy, nodes: Sequence[Node]) -> None:
        self.settings, self.policy = settings, policy
        self.nodes, self.capacity = nodes, Capacity(nodes)
        self.lists = Lists(settings, policy)
        self._installed: dict[str, list[Offer]] = {}
        self.verdicts: dict[Shape, tuple[FieldError, ...]] = {}

    @cached_property
    def default_launcher(self) -> str | None:
        """Of jobs that name none."""
        return self.settings.default_launcher or next(iter(self.capacity.launchers), None)

    def launcher(self, spec: JobSpec) -> Capabilities:
        """The one that will run `spec`. Raises :class:`InvalidSpecError` when no node offers it."""
        if not len(self.capacity):
            raise UnavailableError("no node has joined yet; try again in a few seconds")
        wanted = spec.launcher or self.default_launcher
        offered = self.capacity.launchers
        if wanted is None or wanted not in offered:
            known = ", ".join(sorted(offered)) or "none"
            error = FieldError("launcher", str(wanted), f"no node offers it; offered: {known}")
            raise InvalidSpecError(errors=[error])
        return offered[wanted]

    @cached_property
    def _present(self) -> frozenset[str]:
        return frozenset(image for node in self.nodes for image in node.images)

    def has_image(self, image: str) -> bool:
        """Whether some node has it already."""
        return image in self._present

    def installed(self, launcher: str) -> list[Offer]:
        """The environments that nodes with this launcher have by their labels; of equals one."""
        if launcher not in self._installed:
            self._installed[launcher] = list(
                {
                    offer.labels: offer
                    for node in self.nodes
                    if any(one.name == launcher for one in node.launchers)
                    for offer in of_labels(node.name, node.labels.items())
                }.values()
            )
        return self._installed[launcher]

    def remember(self, shape: Shape, errors: tuple[FieldError, ...]) -> tuple[FieldError, ...]:
        """Keep a verdict for the next job of this shape."""
        if len(self.verdicts) >= SHAPES_KEPT:
            self.verdicts.clear()
        self.verdicts[shape] = errors
        return errors


@dataclass(frozen=True, slots=True)
class Shape:
    """All of a job that decides whether the nodes could ever run it."""

    launcher: str
    devices: bool
    """Whether the launcher hands devices into jobs."""
    partition: str | None
    reservation: str | None
    os: str | None
    node: str | None
    constraints: tuple[tuple[str, str], ...]
    cpu: float
    memory: int
    gpus: tuple[int, str | None, int | None]
    resources: tuple[tuple[str, int], ...]
    nodes: int
    request: JobSpec = field(compare=False)
    """Any job of this shape."""


def shape_of(spec: JobSpec, launcher: Capabilities, partition: str | None) -> Shape:
    """The shape of `spec` in a partition."""
    return Shape(
        launcher=launcher.name,
        devices="devices" in launcher.features,
        partition=partition,
        reservation=spec.reservation,
        os=spec.os,
        node=spec.node,
        constraints=tuple(sorted(spec.constraints.items())),
        cpu=spec.cpu,
        memory=spec.memory,
        gpus=(spec.gpus.count, spec.gpus.model, spec.gpus.memory),
        resources=tuple(sorted(spec.units.items())),
        nodes=spec.nodes,
        request=spec,
    )
