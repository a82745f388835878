"""Lists that notebooks show as tables."""

from __future__ import annotations

from typing import Any

from perijove.inert import html_text, printable
from perijove.model.quantities import format_size
from perijove.status import table_html, table_text
from perijove.sync import Job


class JobTable(list[Job]):
    """Jobs; a list like any other, but for how it looks."""

    def __repr__(self) -> str:
        return table_text(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

    def _repr_html_(self) -> str:
        return table_html(self)


class NodeTable(list[dict[str, Any]]):
    """Nodes and what of them is free."""

    TITLES = ("node", "state", "cpus free", "memory free", "gpus", "launchers")

    def _rows(self) -> list[list[str]]:
        rows = []
        for entry in self:
            node, free = entry["node"], entry["free"]
            rows.append(
                [
                    node["name"],
                    node.get("state", ""),
                    f"{free['cpu']:g} of {node['cpus']:g}",
                    f"{format_size(free['memory'])} of {format_size(node['memory'])}",
                    str(len(node.get("gpus") or [])),
                    " ".join(launcher["name"] for launcher in node.get("launchers") or []),
                ]
            )
        return rows

    def __repr__(self) -> str:
        return printable("\n".join("  ".join(row) for row in self._rows())) or "no nodes"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{title}</th>' for title in self.TITLES)
        rows = "".join(
            f"<tr>{''.join(f'<td>{html_text(cell)}</td>' for cell in row)}</tr>" for row in self._rows()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
