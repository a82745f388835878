"""What the site lets guests ask for."""

from __future__ import annotations

from perijove.model import Capabilities, FieldError, JobSpec, Kind
from perijove_hub.policy.guests import GuestTerms


def guest_errors(spec: JobSpec, launcher: Capabilities, guest: GuestTerms | None) -> list[FieldError]:
    """What a guest's job may not have; nothing of a member's. `spec`: as :func:`for_guest` leaves it."""
    if guest is None:
        return []
    errors = []
    if guest.launchers and launcher.name not in guest.launchers:
        allowed = ", ".join(guest.launchers)
        errors.append(FieldError("launcher", launcher.name, f"not for guests; they may use: {allowed}"))
    elif guest.containers and not launcher.containers:
        text = "not for guests, who share one account: their jobs run in containers"
        errors.append(FieldError("launcher", launcher.name, text))
    elif guest.networks and not launcher.containers:
        text = f"not for guests, who have {', '.join(guest.networks)} only: its jobs have the node's network"
        errors.append(FieldError("launcher", launcher.name, text))
    if spec.kind is Kind.SERVER and guest.networks and set(guest.networks) == {"none"}:
        errors.append(FieldError("network", "", "guests have none here, and notebook servers need one"))
    if spec.user == "root":
        errors.append(FieldError("user", "root", "no guest's job runs as root; leave it out"))
    if spec.network is not None and launcher.containers:
        allowed = ", ".join(guest.networks)
        if spec.network == "host" or (guest.networks and spec.network not in guest.networks):
            text = f"not for guests; they may have: {allowed or 'any other that the site has'}"
            errors.append(FieldError("network", spec.network, text))
    return errors


def for_guest(spec: JobSpec, launcher: Capabilities, guest: GuestTerms | None) -> JobSpec:
    """`spec` with the network that a guest's job has when it names none.

    A notebook server talks to the hub, so it gets the first that is a network.
    """
    if guest is None or not guest.networks or spec.network is not None or not launcher.containers:
        return spec
    if spec.sealed:
        return spec
    real = [name for name in guest.networks if name != "none"]
    wanted = real[:1] if spec.kind is Kind.SERVER else list(guest.networks)[:1]
    return spec.model_copy(update={"network": wanted[0]}) if wanted else spec
