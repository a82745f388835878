"""``python -m perijove.runner cell|notebook|function|step|pool``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from perijove.model.errors import InvalidSpecError
from perijove.runner.directory import JobDirectory, RunnerError
from perijove.runner.display import DisplayLog
from perijove.sweeping import Grid


def main(argv: list[str] | None = None) -> int:
    """Run what the job holds; the job's exit code."""
    arguments = _parser().parse_args(argv)
    try:
        directory = JobDirectory.find()
    except RunnerError as error:
        print(f"perijove.runner: {error}", file=sys.stderr)
        return 2
    log = DisplayLog(directory.path)
    try:
        return _run(arguments, directory, log)
    except RunnerError as error:
        log.failure("RunnerError", str(error), [f"perijove: {error}"])
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _run(arguments: argparse.Namespace, directory: JobDirectory, log: DisplayLog) -> int:
    if arguments.what == "function":
        from perijove.runner.function import run_function

        return run_function(directory, log)
    if arguments.what == "step":
        from perijove.runner.step import run_step

        return run_step(directory, log)
    if arguments.what == "pool":
        from perijove.runner.pool import run_pool

        return run_pool(directory, arguments.idle)
    if arguments.what == "cell":
        try:
            from perijove.runner.cell import run_cell
        except ModuleNotFoundError as error:
            raise RunnerError(f"{error.name} is not installed in this job, and cells need it") from error
        return run_cell(directory, log, arguments.out)
    # jsonschema would build a grammar of IRIs, which no notebook has: half of the time until one begins.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    try:
        from perijove.runner.notebook import run_notebook
    except ModuleNotFoundError as error:
        raise RunnerError(f"{error.name} is not installed in this job, and notebooks need it") from error
    return run_notebook(
        directory,
        log,
        notebook=arguments.notebook,
        output=arguments.output,
        parameters=arguments.parameters,
        sweep=arguments.sweep,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="perijove.runner", description=__doc__)
    kinds = parser.add_subparsers(dest="what", required=True)
    cell = kinds.add_parser("cell", help="input/cell.py, with input/NAME.pkl as variables")
    cell.add_argument("--out", action="append", default=[], metavar="NAME", help="kept as output/NAME.pkl")
    notebook = kinds.add_parser("notebook", help="a notebook, by papermill")
    notebook.add_argument("notebook", nargs="?", help="default: input/notebook.ipynb")
    notebook.add_argument("--output", help="default: output/notebook.ipynb")
    notebook.add_argument(
        "--parameters", type=_parameters, help="a JSON object; default: input/parameters.json"
    )
    notebook.add_argument(
        "--sweep",
        type=_sweep,
        metavar="JSON",
        help="lists of values by parameter; PERIJOVE_TASK_ID counts their combinations from 1",
    )
    kinds.add_parser("function", help="input/function.pkl, to output/result.pkl")
    kinds.add_parser("step", help="input/function.pkl, called as input/call.json says, to output/result.pkl")
    pool = kinds.add_parser("pool", help="calls that the node's agent sends, one after another")
    pool.add_argument("--idle", type=float, default=30.0, metavar="SECONDS", help="end after so long without")
    return parser


def _parameters(text: str) -> dict[str, Any]:
    value: Any = json.loads(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return value


def _sweep(text: str) -> Grid:
    try:
        return Grid(_parameters(text))
    except InvalidSpecError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
