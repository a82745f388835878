"""Image registries: by which name they go, and with whom the site asks them."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from perijove_spawners.containers.registry_access import registry_of

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}(?::[0-9]{1,5})?")


class RegistrySetting(BaseModel):
    """With whom a registry is asked for images, for everybody who may use them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    username: str
    password_file: Path
    """Holds the password; read each time, so that it may change."""


def is_registry(name: str) -> bool:
    """Whether `name` can be that of a registry: a host, perhaps with a port."""
    return bool(_HOST.fullmatch(name)) and registry_of(f"{name}/x") == name
