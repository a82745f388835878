"""A database as the first version left it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from perijove_hub.store import migrating

FIRST_FORM = """INSERT INTO job
    (id, owner, name, state, attempt, exit_code, node, launcher, submitted, started, ended,
    array_id, array_task, spec, detail)
    VALUES (:id, :owner, :name, :state, :attempt, :exit_code, :node, 'process', :submitted, :started, :ended,
    :array_id, :array_task, :spec, :detail)"""
"""Statement for rows of :func:`old`."""


def old(number: int, state: str, **changes: Any) -> dict[str, Any]:
    """A row as the first version wrote it."""
    spec = {"command": ["true"], **changes.pop("spec", {})}
    row = {"owner": "alice", "name": "j", "attempt": 0, "exit_code": None, "node": None, "submitted": 100.0}
    row |= {"started": None, "ended": None, "array_id": None, "array_task": None, "detail": "{}"}
    return {**row, "id": number, "state": state, "spec": json.dumps(spec), **changes}


def to(connection: Connection, revision: str) -> None:
    """The tables as that revision left them."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrating.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
