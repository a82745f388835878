"""From any earlier form of the tables to this version's."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from perijove.model import OperatorError
from perijove_hub.store.lease import NAME, queries_for

_ALONE = 0x5065_7269_6A6F_7665
"""Key of PostgreSQL's advisory lock that one who migrates holds."""


def upgrade(connection: Connection) -> None:
    """Upgrade, in the transaction of `connection`; services that start at the same time follow each other.

    :class:`OperatorError` when a service leads that works with the earlier form, or when the tables are
    those of a later version.
    """
    postgresql = connection.dialect.name == "postgresql"
    if postgresql:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ALONE})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    present = MigrationContext.configure(connection).get_current_revision()
    script = ScriptDirectory.from_config(config)
    if present == script.get_current_head():
        return
    if present is not None and present not in {known.revision for known in script.walk_revisions()}:
        raise OperatorError(
            f"the database is of a later version of Perijove (revision {present}); install that version"
        )
    if inspect(connection).has_table("lease"):
        lease = queries_for(postgresql=postgresql).read(connection)
        if lease is not None and lease.left > 0:
            raise OperatorError(
                f"the {NAME} {lease.holder} ({lease.url}) works with an earlier form of the tables;"
                " stop all services before an upgrade"
            )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
