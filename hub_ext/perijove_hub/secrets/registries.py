"""Image registries: by which name they go, and with whom the site asks them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from perijove_spawners.references import registry_of


class RegistrySetting(BaseModel):
    """With whom a registry is asked for images, for everybody who may use them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    username: str
    password_file: Path
    """Holds the password; read each time, so that it may change."""


def is_registry(name: str) -> bool:
    """Whether `name` is that of a registry: a host in lower case, perhaps with a port."""
    return registry_of(f"{name}/x") == name
