"""What only some may have: root, the node's namespaces and screen, networks, ports."""

from __future__ import annotations

from collections.abc import Iterator

from perijove.model import Capabilities, FieldError, JobSpec, Kind
from perijove_hub.admission.site import Asker, Site
from perijove_hub.policy.grants import Grant

ASK = "ask an administrator for it"


def grant_errors(spec: JobSpec, launcher: Capabilities, asker: Asker) -> list[FieldError]:
    """What was asked for and not granted, and what a sealed job cannot have."""
    return [
        *_root(spec, launcher, asker),
        *_given(spec, "ipc", "host", "host_ipc", "the node's IPC namespace", asker),
        *_given(spec, "gui", "true", "gui", "the node's screen", asker),
        *_ports(spec, asker),
    ]


def _root(spec: JobSpec, launcher: Capabilities, asker: Asker) -> Iterator[FieldError]:
    if spec.user != "root":
        return
    if "root" not in launcher.features:
        text = f"not supported by launcher {launcher.name}: there is no container to be root in"
        yield FieldError("user", "root", text)
    elif not asker.granted("root", spec.project):
        yield FieldError("user", "root", f"you may not be root in your containers; leave it out, or {ASK}")
    elif spec.sealed:
        yield FieldError("user", "root", "a sealed job is nobody's but yours; leave out user or sealed")


def _given(
    spec: JobSpec, name: str, value: str, grant: Grant, what: str, asker: Asker
) -> Iterator[FieldError]:
    given = getattr(spec, name)
    if given != value and given is not True:
        return
    if not asker.granted(grant, spec.project):
        yield FieldError(name, value, f"you may not use {what}; leave it out, or {ASK}")
    elif spec.sealed:
        yield FieldError(name, value, f"a sealed job does not share {what}; leave out {name} or sealed")


def _ports(spec: JobSpec, asker: Asker) -> Iterator[FieldError]:
    # A notebook server is of no use without its own.
    if not spec.ports or spec.kind is Kind.SERVER or asker.granted("ports", spec.project) is not False:
        return
    text = f"you may not publish ports; leave them out, or {ASK}"
    yield FieldError("ports", ", ".join(map(str, spec.ports)), text)


def network_errors(spec: JobSpec, launcher: Capabilities, site: Site, asker: Asker) -> list[FieldError]:
    """Whether the launcher has the network and the user may have it."""
    wanted = spec.network
    if wanted is None:
        return []
    if wanted not in launcher.networks:
        known = ", ".join(sorted(launcher.networks))
        text = f"not supported by launcher {launcher.name}; it has: {known}"
    elif launcher.containers and wanted not in (mine := networks_of(site, asker, spec.project)):
        known = ", ".join(sorted(launcher.networks & mine)) or "none"
        text = f"this site does not give it to its users; allowed: {known}"
    elif wanted == "project" and spec.project is None:
        text = "the job is in no project; name one with project, or take the network user"
    else:
        return []
    return [FieldError("network", wanted, text)]


def networks_of(site: Site, asker: Asker, project: str | None) -> frozenset[str]:
    """Networks of containers that jobs of the user in `project` may have."""
    allowed = set(site.settings.allowed_networks)
    said = asker.granted("host_network", project)
    if said is not None:
        allowed -= {"host"}
        allowed |= {"host"} if said else set()
    return frozenset(allowed)
