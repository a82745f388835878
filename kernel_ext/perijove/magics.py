"""``%load_ext perijove``: ``%%submit`` and the line magics about jobs.

Nothing heavy is imported before a magic is used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class

from perijove.arguments import MagicParser, job_parser, parse, submit_parser

if TYPE_CHECKING:
    from perijove.sync import Client, Job

F = TypeVar("F", bound=Callable[..., Any])
NAMES = (
    "submit", "jobs", "job", "why", "logs", "kill", "hold", "release", "nodes", "workflow", "workflows",
)  # fmt: skip


def tidy(method: F) -> F:
    """Errors that Perijove understands are shown as what they say, without the traceback of saying it."""

    @wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        from perijove.model.errors import PerijoveError

        try:
            return method(*args, **kwargs)
        except PerijoveError as error:
            if not hasattr(error, "_render_traceback_"):
                lines = [f"{type(error).__name__}: {line}" for line in (error.errors or [error])]
                error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
            raise

    return called  # type: ignore[return-value]


@magics_class
class PerijoveMagics(Magics):
    """The magics. They talk through the client that :func:`perijove.connect` made, or the default one."""

    @line_cell_magic
    @tidy
    def submit(self, line: str, cell: str | None = None) -> None:
        """Run the cell as a job; ``%submit --help`` tells all."""
        arguments = parse(submit_parser(), line)
        if arguments is None:
            return
        from perijove.submission import Submission

        Submission(self.shell, self.client(), arguments).run(cell or "")

    @line_cell_magic
    @tidy
    def workflow(self, line: str, cell: str | None = None) -> Any:
        """Run the workflow in the cell; ``%workflow 12`` shows a run; ``%workflow --help`` tells all."""
        from perijove.workflow_cell import WorkflowCell, workflow_parser

        arguments = parse(workflow_parser(), line)
        return None if arguments is None else WorkflowCell(self.shell, self.client(), arguments).run(cell)

    @line_magic
    @tidy
    def workflows(self, line: str) -> Any:
        """``%workflows [-s STATE] [-n COUNT]``: your latest runs of workflows."""
        arguments = parse(_list_parser("%workflows", "Your latest runs of workflows."), line)
        if arguments is None:
            return None
        from perijove.run_display import RunTable

        states = arguments.state.split(",") if arguments.state else None
        return RunTable(self.client().workflows(state=states, limit=arguments.limit))

    @line_magic
    @tidy
    def jobs(self, line: str) -> Any:
        """``%jobs [-s STATE] [-n COUNT]``: your latest jobs."""
        arguments = parse(_list_parser("%jobs", "Your latest jobs."), line)
        if arguments is None:
            return None
        from perijove.tables import JobTable

        states = arguments.state.split(",") if arguments.state else None
        return JobTable(self.client().jobs(state=states, limit=arguments.limit))

    @line_magic
    @tidy
    def job(self, line: str) -> Any:
        """``%job 12``: how it stands; ``-o`` replays its output, ``-w`` waits with a live view."""
        parser = job_parser("%job", "A job: how it stands, what it put out.")
        parser.add_argument("-o", "--output", action="store_true", help="replay its output into this cell")
        parser.add_argument(
            "-w", "--wait", action="store_true", help="show its output live until it has ended"
        )
        arguments = parse(parser, line)
        if arguments is None:
            return None
        job = self._named(arguments.id)
        if arguments.wait:
            from perijove.submission import attend

            attend(job)
        elif arguments.output:
            from IPython.display import publish_display_data

            from perijove.status import status_bundle

            publish_display_data(status_bundle(job), {"perijove": {"job": job.label}})
            job.show()
        else:
            return job
        return None

    @line_magic
    @tidy
    def why(self, line: str) -> Any:
        """``%why 12``: what a job waits for, and when it is likely to start."""
        arguments = parse(job_parser("%why", "Why a job waits, and when it is likely to start."), line)
        return None if arguments is None else self._named(arguments.id).why()

    @line_magic
    @tidy
    def logs(self, line: str) -> None:
        """``%logs 12 [-f]``: what a job has printed."""
        parser = job_parser("%logs", "What a job has printed.")
        parser.add_argument("-f", "--follow", action="store_true", help="go on until it has ended")
        parser.add_argument("--stderr", action="store_true", help="its standard error only")
        arguments = parse(parser, line)
        if arguments is None:
            return
        job = self._named(arguments.id)
        if arguments.follow:
            for text in job.follow("stderr" if arguments.stderr else "stdout"):
                sys.stdout.write(text)
            return
        if not arguments.stderr:
            sys.stdout.write(job.logs("stdout"))
        sys.stderr.write(job.logs("stderr"))

    @line_magic
    @tidy
    def kill(self, line: str) -> Any:
        """``%kill 12``: stop jobs for good."""
        return self._act("kill", line)

    @line_magic
    @tidy
    def hold(self, line: str) -> Any:
        """``%hold 12``: keep waiting jobs from starting."""
        return self._act("hold", line)

    @line_magic
    @tidy
    def release(self, line: str) -> Any:
        """``%release 12``: let held jobs start."""
        return self._act("release", line)

    @line_magic
    @tidy
    def nodes(self, line: str) -> Any:
        """``%nodes``: the nodes, and what of them is free."""
        from perijove.tables import NodeTable

        return NodeTable(self.client().nodes())

    def client(self) -> Client:
        """The client in use."""
        import perijove

        return perijove.default_client()

    def _act(self, verb: str, line: str) -> Any:
        from perijove.tables import JobTable

        parser = MagicParser(f"%{verb}", "By id; without one, the last job submitted here.")
        parser.add_argument("ids", nargs="*", metavar="ID")
        arguments = parse(parser, line)
        if arguments is None:
            return None
        found = [self._named(job_id) for job_id in arguments.ids or [None]]
        return JobTable([getattr(job, verb)() for job in found])

    def _names(self) -> dict[str, Any]:
        return self.shell.user_ns if self.shell is not None else {}

    def _named(self, job_id: str | None) -> Job:
        if job_id is None:
            job_id = getattr(self._names().get("_perijove_job"), "label", None)
        if job_id is None:
            from IPython.core.error import UsageError

            raise UsageError("no job was submitted here yet: give a job's id, see %jobs")
        return self.client().job(job_id)


def _list_parser(prog: str, description: str) -> MagicParser:
    parser = MagicParser(prog, description)
    parser.add_argument("-s", "--state", help="only those in this state; several with commas")
    parser.add_argument("-n", "--limit", type=int, default=20, help="at most so many")
    return parser


def register(shell: Any) -> None:
    """Add the magics to `shell`."""
    shell.register_magics(PerijoveMagics)
    if bodyless not in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.append(bodyless)
    shell.set_hook("complete_command", complete, re_key=r"%{1,2}submit")


def unregister(shell: Any) -> None:
    """Take them away again."""
    for kind in shell.magics_manager.magics.values():
        for name in NAMES:
            if isinstance(getattr(kind.get(name), "__self__", None), PerijoveMagics):
                del kind[name]
    if bodyless in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(bodyless)


def bodyless(lines: list[str]) -> list[str]:
    """``%%submit --help`` or ``--notebook N`` alone: IPython wants one ``%`` where there is no body."""
    if lines and lines[0].startswith(("%%submit", "%%workflow")) and not "".join(lines[1:]).strip():
        return [lines[0][1:]]
    return lines


def complete(_shell: Any, event: Any) -> list[str]:
    """Options that go on as typed."""
    return [option for option in submit_parser().options() if option.startswith(event.symbol)]
