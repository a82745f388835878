"""What ``%%workflow`` and ``%workflow`` do: the document in a cell or file becomes a run, shown live."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from perijove import documents
from perijove.arguments import MagicParser
from perijove.run_watch import attend, attend_in_background
from perijove.sync import Client
from perijove.sync_runs import Run

if TYPE_CHECKING:
    import argparse

    from perijove.model.workflow import Workflow

_ABOUT = """\
Run the workflow in this cell, a YAML or JSON document with its steps, and show it live.
Files and notebooks that it names are found from the notebook's folder. Interrupting the cell (the stop
button) leaves the run going on.
"""
_EXAMPLES = """\
examples:
  %%workflow fit -p lr=0.1 -p seeds=[1,2,3]
  %workflow flow.yaml -p xs=@list.json
  %workflow 12          shows run 12 and its steps
  %workflow 12 -w       stays with it
  %workflow 12 --resume runs what has not succeeded once more

In the notebook, `run` is then the run: run.wait(), run.result(), run.explain(), run.kill().
"""


def workflow_parser() -> MagicParser:
    """The options of ``%%workflow``."""
    parser = MagicParser("%%workflow", _ABOUT, _EXAMPLES)
    parser.add_argument("what", nargs="?", metavar="NAME|FILE|ID", help="see the examples")
    parser.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--cache", choices=("use", "refresh", "off"), default="use", help="take results of equal steps (use)"
    )
    parser.add_argument("--project", help="on whose account it runs")
    parser.add_argument("--priority", type=int, help="0 to 100, 50 when not given")
    parser.add_argument("--hold", action="store_true", help="do not start before --release")
    parser.add_argument("--fail-fast", action="store_true", help="a failed step stops all others")
    parser.add_argument("-b", "--background", action="store_true", help="go on at once")
    parser.add_argument("-w", "--wait", action="store_true", help="with an ID: show it until it has ended")
    acts = parser.add_mutually_exclusive_group()
    acts.add_argument("--kill", dest="verb", action="store_const", const="kill", help="with an ID: stop it")
    acts.add_argument(
        "--release", dest="verb", action="store_const", const="release", help="with an ID: let it go on"
    )
    acts.add_argument(
        "--resume", dest="verb", action="store_const", const="resume", help="with an ID: run the rest anew"
    )
    return parser


class WorkflowCell:
    """One use of ``%%workflow`` or ``%workflow`` in `shell`."""

    def __init__(self, shell: Any, client: Client, arguments: argparse.Namespace) -> None:
        self.shell, self.client, self.arguments = shell, client, arguments

    def run(self, cell: str | None) -> Run | None:
        """Start what the cell or a file describes, or act on a run; answer what is to be displayed."""
        what = self.arguments.what or ""
        if cell is not None:
            if not cell.strip():
                raise UsageError("%%workflow: the cell has no workflow: a document with steps is expected")
            self._start(self._named(documents.parse(cell, "cell")), Path.cwd())
            return None
        if what.isascii() and what.isdecimal():
            return self._existing(int(what))
        if not what:
            return self._latest()
        path = Path(what).expanduser()
        self._start(documents.load(path), path.parent)
        return None

    def _named(self, workflow: Workflow) -> Workflow:
        if not self.arguments.what:
            return workflow
        return workflow.model_validate(
            {**workflow.model_dump(exclude_unset=True), "name": self.arguments.what}
        )

    def _start(self, workflow: Workflow, folder: Path) -> None:
        arguments = self.arguments
        if arguments.verb:
            raise UsageError(f"%%workflow: --{arguments.verb} goes with the number of a run")
        how = {"project": arguments.project, "priority": arguments.priority, "cache": arguments.cache}
        how |= {"hold": arguments.hold or None, "fail_fast": arguments.fail_fast or None}
        values = values_of(workflow, arguments.parameter)
        run = self.client.run_workflow(workflow, values, folder=folder, **how)
        self._show(run, stay=not arguments.background)

    def _latest(self) -> Run:
        run = self.shell.user_ns.get("_perijove_run")
        if not isinstance(run, Run):
            raise UsageError("no workflow was started here yet: give a run's number")
        return self._existing(run.id) or run

    def _existing(self, number: int) -> Run | None:
        arguments = self.arguments
        run = self.client.workflow(number)
        if arguments.verb == "resume":
            workflow = run.record.workflow
            values = values_of(workflow, arguments.parameter) if workflow else {}
            self._show(run.resume(cache=arguments.cache, **values), stay=not arguments.background)
            return None
        if arguments.parameter:
            raise UsageError("%workflow: -p goes with --resume, or with a workflow that starts")
        if arguments.hold:
            run.hold()
        elif arguments.verb:
            getattr(run, arguments.verb)()
        if arguments.wait or arguments.background:
            self._show(run, stay=arguments.wait)
            return None
        return run

    def _show(self, run: Run, *, stay: bool) -> None:
        self.shell.user_ns["run"] = self.shell.user_ns["_perijove_run"] = run
        if stay:
            attend(run)
        else:
            attend_in_background(run)


def values_of(workflow: Workflow, given: list[str]) -> dict[str, Any]:
    """Parameters as ``-p`` gives them: text where the workflow says so, else JSON, Python, or just text.

    ``@FILE`` stands for the JSON in a file. ``UsageError`` for what is no NAME=VALUE.
    """
    values = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals or not name:
            raise UsageError(f"%%workflow: -p {each}: NAME=VALUE is expected")
        known = workflow.parameters.get(name)
        if text.startswith("@"):
            values[name] = _from_file(name, text[1:])
        else:
            values[name] = text if known is not None and known.type == "text" else _value(text)
    return values


def _value(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return text


def _from_file(name: str, path: str) -> Any:
    try:
        return json.loads(Path(path).expanduser().read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"%%workflow: -p {name}=@{path}: {error}") from None


__all__ = ["WorkflowCell", "values_of", "workflow_parser"]
