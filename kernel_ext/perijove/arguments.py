"""The options of the magics, as argparse has them."""

from __future__ import annotations

import argparse
import ast
import shlex
import sys
from typing import Any, NoReturn

from IPython.core.error import UsageError

from perijove.headers import headers_of, late_text
from perijove.model.errors import UserError
from perijove.options import OPTIONS, combined, spec_fields

_SUBMIT = """\
Run this cell as a job: in the notebook's own image, with the same home and working directory.
The cell shows how the job stands and then its output. The names listed --in are sent along, those
listed --out come back. Interrupting the cell (the stop button) leaves the job running.
"""
_EXAMPLES = """\
examples:
  %%submit --cpus 4 --memory 8G --in X,y --out scores
  %%submit --gpus 1 --time 2h --background
  %%submit --port 8888 --background
  %%submit --shell --array 1:100%5
  %submit --notebook other.ipynb -p alpha 0.1

In the notebook, `job` is then the job: job.wait(), job.result(), job.logs(), job.kill().
"""


class MagicParser(argparse.ArgumentParser):
    """Tells of errors as IPython's magics do, and does not end the kernel."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            exit_on_error=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} (see {self.prog} --help)")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise _HelpShownError

    def options(self) -> list[str]:
        """All options by name."""
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]


class _HelpShownError(Exception):
    """Help was asked for and shown."""


def parse(parser: MagicParser, line: str) -> argparse.Namespace | None:
    """The options of `line`; None when help was asked for. ``UsageError`` for what cannot be understood."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{parser.prog}: {error} in {line!r}") from error
    try:
        return parser.parse_args(words)
    except _HelpShownError:
        return None
    except argparse.ArgumentError as error:
        parser.error(str(error))


def job_parser(prog: str, description: str) -> MagicParser:
    """A parser for one job's id, by default the last one's submitted here."""
    parser = MagicParser(prog, description)
    parser.add_argument("id", nargs="?", metavar="ID", help="default: the last job submitted here")
    return parser


def submit_parser() -> MagicParser:
    """The options of ``%%submit``."""
    parser = MagicParser("%%submit", _SUBMIT, _EXAMPLES)
    what = parser.add_argument_group("what to run (this cell as Python code, unless)")
    what.add_argument("--shell", action="store_true", help="the cell is a bash script")
    what.add_argument("--notebook", metavar="FILE", help="run this notebook instead of the cell")
    what.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    what.add_argument("--output", metavar="FILE", help="where the executed notebook goes: NAME.ID.ipynb")
    names = parser.add_argument_group("what travels")
    names.add_argument(
        "--in", dest="inputs", action="append", default=[], metavar="A,B", help="names to send"
    )
    names.add_argument(
        "--out", dest="outputs", action="append", default=[], metavar="C", help="names to get back"
    )
    names.add_argument("-e", "--env", action="append", default=[], metavar="KEY=VALUE")
    names.add_argument("--secret", action="append", default=[], metavar="NAME[=env:VAR]", help="one of yours")
    names.add_argument("--cwd", help="working directory")
    names.add_argument("--volume", action="append", default=[], metavar="NAME[:ro]", help="beside the home")
    _add_resources(parser.add_argument_group("where and with what"))
    how = parser.add_argument_group("how")
    how.add_argument("--name", help="what to call the job")
    how.add_argument("--project", help="on whose account it runs")
    how.add_argument("--priority", type=int, help="0 to 100, 50 when not given")
    how.add_argument("--retries", type=int, help="again this often when it fails")
    how.add_argument(
        "--retry-on", action="append", default=[], metavar="CAUSE", help="failure, node, oom, time, exit:CODE"
    )
    how.add_argument("--oom-retry", metavar="FACTOR", help="when out of memory, again with 2x as much")
    how.add_argument(
        "--array",
        metavar="START:END[:STEP][%N]",
        help="a job for each number (PERIJOVE_TASK_ID), %%N at once",
    )
    how.add_argument("--signal", metavar="NAME@TIME", help="warn it before its time limit: USR1@5m")
    how.add_argument(
        "--preemptible", action=argparse.BooleanOptionalAction, help="it may be stopped for a job that is not"
    )
    how.add_argument(
        "--depends", action="append", default=[], metavar="afterok:ID", help="wait for another job"
    )
    how.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    how.add_argument("--hold", action=argparse.BooleanOptionalAction, help="do not start before %%release")
    how.add_argument(
        "--wait", dest="background", action="store_false", help="stay until it has ended (default)"
    )
    how.add_argument(
        "-b", "--background", "--no-wait", dest="background", action="store_true", help="go on at once"
    )
    parser.set_defaults(background=False)
    return parser


def header_options(script: str, name: str) -> dict[str, Any]:
    """Fields that the ``#PERIJOVE`` lines of `script` ask for; ``UsageError`` names the line."""
    headers, fields = headers_of(script, name), dict[str, Any]()
    if text := late_text(headers, name):
        sys.stderr.write(f"{text}\n")
    parser = submit_parser()
    defaults = vars(parser.parse_args([]))
    for header in headers.read:
        place = f"{name}:{header.line}"
        try:
            given = vars(parser.parse_args(list(header.words)))
            if other := [k for k in given if k not in OPTIONS and given[k] != defaults[k]]:
                raise UsageError(f"--{other[0]} belongs into the first line")
            fields = combined(fields, spec_fields(**{k: v for k, v in given.items() if k in OPTIONS}))
        except _HelpShownError:
            continue
        except (UsageError, UserError, argparse.ArgumentError) as error:
            raise UsageError(f"{place}: {error}") from None
    return fields


def _add_resources(group: Any) -> None:
    group.add_argument("--image", help="container image; the notebook's own when not given")
    group.add_argument("--runenv", metavar="NAME[-VERSION]", help="an environment in place of an image")
    group.add_argument("--require", action="append", default=[], metavar="FEATURE[-VERSION]", help="of it")
    group.add_argument("--user", choices=("self", "root"), help="root in its container, where granted")
    group.add_argument("--launcher", help="docker, podman, process, ...")
    group.add_argument("--node", help="this node only")
    group.add_argument("--partition", help="this group of nodes")
    group.add_argument(
        "--constraint", action="append", default=[], metavar="KEY=VALUE", help="label that the node must bear"
    )
    group.add_argument("--reservation", help="the nodes that this reservation keeps")
    group.add_argument("--nodes", type=int, metavar="N", help="so many at once, each with all of this")
    group.add_argument(
        "--exclusive", action=argparse.BooleanOptionalAction, help="share the node with no other job"
    )
    group.add_argument("-c", "--cpus", "--cpu", metavar="N", help="cores, such as 2 or 0.5")
    group.add_argument("-m", "--memory", metavar="SIZE", help="such as 512M or 8G")
    group.add_argument("-g", "--gpus", metavar="N", help="2, a100, a100:2 or 2@40G")
    group.add_argument("-t", "--time", metavar="TIME", help="stop it after 90s, 30m, 1d12h, ...")
    group.add_argument("--shm", metavar="SIZE", help="size of /dev/shm")
    group.add_argument("--tmp-disk", metavar="SIZE", help="scratch space on the node: 20G")
    group.add_argument(
        "--resource", action="append", metavar="NAME=COUNT", help="what else nodes count: licence=1"
    )
    group.add_argument("--network", help="none, bridge, user, project or host")
    group.add_argument(
        "--port", action="append", default=[], metavar="NUMBER", help="it serves something there"
    )
    group.add_argument("--ipc", choices=("private", "host"), help="host: share memory with the node")
    group.add_argument("--gui", action=argparse.BooleanOptionalAction, help="windows on the node's screen")


def parameter_value(text: str) -> Any:
    """A notebook's parameter as Python has it: numbers, True, None, lists and the like, else text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
