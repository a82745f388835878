"""Configures the hub that ``perijove up`` runs: ``jupyterhub -f`` this file, with PERIJOVE_STATE set."""

from perijove_hub.hub_config import HubOptions, configure
from perijove_hub.settings import default_state

_state = default_state()
configure(get_config(), HubOptions.load(_state / "hub" / "options.json"), _state)  # type: ignore[name-defined]  # noqa: F821
