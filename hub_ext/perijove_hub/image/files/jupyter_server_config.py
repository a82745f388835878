"""Read by each Jupyter server of this environment.

Each home gets the tour once, and terminals run bash where the account has no own shell.
"""

import os
import shutil
import sys
from pathlib import Path


def offer_tour(home: Path, tour: Path) -> None:
    """Copy the tour's notebooks into `home`: once, and over nothing that is there."""
    offered = home / ".local" / "share" / "perijove" / "tour-offered"
    try:
        if offered.exists():
            return
        for notebook in sorted(tour.glob("*.ipynb")):
            if not (home / notebook.name).exists():
                shutil.copyfile(notebook, home / notebook.name)
        offered.parent.mkdir(parents=True, exist_ok=True)
        offered.touch()
    except OSError as error:
        print(f"the tour was not copied into {home}: {error}", file=sys.stderr)


if os.environ.get("SHELL", "/bin/sh") == "/bin/sh" and (bash := shutil.which("bash")):
    get_config().ServerApp.terminado_settings = {"shell_command": [bash]}  # type: ignore[name-defined]  # noqa: F821

offer_tour(Path.home(), Path(sys.prefix) / "share" / "perijove" / "tour")
