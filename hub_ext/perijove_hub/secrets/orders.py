"""What an order holds and no record of its job: values of secrets, a login at the image's registry."""

from __future__ import annotations

from typing import Any

from perijove.model import Job, OperatorError
from perijove_hub.secrets.keeper import Secrets
from perijove_hub.secrets.registries import RegistrySetting
from perijove_spawners.launcher import ARCHIVE, RegistryLogin
from perijove_spawners.references import registry_of


def confided(job: Job, secrets: Secrets, registries: dict[str, RegistrySetting]) -> dict[str, Any]:
    """Those fields of the order of `job`: its owner's before its project's, and those before the site's.

    :class:`PerijoveError` says which secret cannot be had, and why.
    """
    spec, found = job.spec, dict[str, Any]()
    if spec.secrets:
        found["secrets"] = secrets.of_job(job.owner, spec.project, spec.secrets)
    if spec.image and not spec.image.startswith(ARCHIVE):
        registry = registry_of(spec.image)
        login = secrets.login(job.owner, spec.project, registry)
        if login is None and registry in registries:
            login = _of_site(registry, registries[registry])
        found["registry"] = login
    return found


def _of_site(registry: str, setting: RegistrySetting) -> RegistryLogin:
    try:
        return RegistryLogin(setting.username, setting.password_file.read_text().strip())
    except (OSError, UnicodeDecodeError) as error:
        text = f"the site's password for the registry {registry} cannot be read; tell the administrator"
        raise OperatorError(text) from error
