"""Queue and nodes -> plan: which job starts where, and why the others do not.

Pure functions over frozen data and one table that a pass uses up: see :mod:`~perijove_hub.placement.plan`.
"""

from perijove_hub.placement.entry import Entry, Placement, Preempt
from perijove_hub.placement.request import matching
from perijove_hub.placement.table import NodeTable

__all__ = ["Entry", "NodeTable", "Placement", "Preempt", "matching"]
