"""What admission asks of the running service, made anew only when nodes, policy or settings changed."""

from __future__ import annotations

from collections.abc import Hashable
from weakref import WeakKeyDictionary

from perijove_hub.admission import Asker, Site
from perijove_hub.jobs.controller import Controller
from perijove_hub.policy.document import Policy

_sites: WeakKeyDictionary[Controller, tuple[Hashable, Site]] = WeakKeyDictionary()


def policy_of(controller: Controller) -> Policy:
    """The policy in force."""
    return controller.board.policy


def maintenance_of(controller: Controller) -> str | None:
    """Why nothing starts; None when maintenance is off."""
    return controller.board.maintenance


def site_of(controller: Controller) -> Site:
    """The site as it is now, with the answers that it gave before as long as they hold."""
    settings, policy, nodes = controller.settings, policy_of(controller), controller.ledger.nodes
    offered = settings.default_launcher, settings.max_time
    described = tuple((n.name, n.incarnation, n.cpus, n.memory, len(n.gpus), len(n.images)) for n in nodes)
    revision = (id(policy), offered, described)
    known = _sites.get(controller)
    if known is None or known[0] != revision or known[1].policy is not policy:
        known = _sites[controller] = (revision, Site(settings, policy, nodes))
    return known[1]


def asker_of(controller: Controller, owner: str) -> Asker:
    """The user whose jobs these will be."""
    core = controller.core
    asker = Asker(policy_of(controller), owner, core.groups_of(owner), core.terms_of(owner))
    asker.held = core.secrets.held
    return asker
