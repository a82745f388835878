"""The papermill engine ``perijove``: ``papermill in.ipynb out.ipynb -p alpha 0.1 --engine perijove``.

papermill has put the parameters in; the notebook travels as a file, runs as one job, and its outputs come
back cell by cell. What the job asks for is said, strongest first, by keyword arguments of
``papermill.execute_notebook`` (``cpus=4, memory="8G"``), by the variable ``PERIJOVE_SUBMIT`` (options as for
``%%submit``, such as ``--cpus 4 --memory 8G``), by the notebook's metadata ``{"perijove": {"cpus": 4}}``.

papermill imports this module whenever it is itself imported: nothing but papermill may be needed for that.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perijove.sync import Client, Job

log = logging.getLogger("papermill")


def __getattr__(name: str) -> Any:
    """``PerijoveEngine``, of a class of papermill's.

    papermill loads all engines when it is imported. Were it imported here, it would look for this one in a
    module that is only half there.
    """
    if name != "PerijoveEngine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import papermill.engines  # noqa: F401 -- asks for the engine itself, and so makes it

    return _engine()


@cache
def _engine() -> type:
    from papermill.engines import Engine

    class PerijoveEngine(Engine):  # type: ignore[misc]
        """Runs a managed notebook as a job."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> None:
            """Submit the notebook of `nb_man` and follow it to its end.

            A cell that fails in the job fails here as it would have locally: papermill raises its
            PapermillExecutionError. So does a job that ends otherwise, in the cell that ran. An interrupt
            kills the job.
            """
            import perijove
            from perijove.watch import Watch

            # papermill's command shows all INFO messages of all libraries; ours says what matters.
            requests = logging.getLogger("httpx")
            if requests.level == logging.NOTSET:
                requests.setLevel(logging.WARNING)
            job = _submitted(perijove.default_client(), nb_man.nb, kernel_name, options)
            run = _Run(nb_man, job, options)
            try:
                with Watch(job, stats=False) as watch:
                    for happening in watch:
                        run.happened(happening)
            except KeyboardInterrupt:
                job.kill()
                raise
            run.finish()

    return PerijoveEngine


def _submitted(client: Client, nb: Any, kernel_name: str, options: Mapping[str, Any]) -> Job:
    import nbformat

    from perijove.payload import notebook_content_payload
    from perijove.sync import LOOP, Job

    sent = copy.deepcopy(nb)
    if kernel_name:
        spec = sent.metadata.setdefault("kernelspec", nbformat.from_dict({"display_name": kernel_name}))
        spec["name"] = kernel_name
    name = PurePath(str(options.get("input_path") or "notebook.ipynb")).name
    payload = notebook_content_payload(nbformat.writes(sent).encode(), {}, name)
    return Job(LOOP.run(payload.submit(client.async_client, requested(nb.metadata, options))))


def requested(metadata: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the spec from the three places that may name them."""
    from perijove.arguments import parse, submit_parser
    from perijove.model.errors import FieldError, InvalidSpecError
    from perijove.options import OPTIONS, spec_fields

    noted = dict(metadata.get("perijove") or {})
    if unknown := sorted(noted.keys() - OPTIONS):
        text = f"not an option; there are: {', '.join(sorted(OPTIONS))}"
        raise InvalidSpecError(errors=[FieldError(f"metadata.perijove.{unknown[0]}", "", text)])
    arguments = parse(submit_parser(), os.environ.get("PERIJOVE_SUBMIT", ""))
    said = {name: value for name, value in vars(arguments).items() if value} if arguments else {}
    together = {**noted, **said, **{name: value for name, value in options.items() if value is not None}}
    return spec_fields(**{name: value for name, value in together.items() if name in OPTIONS})


class _Run:
    """The job's happenings, written into papermill's notebook."""

    def __init__(self, nb_man: Any, job: Job, options: Mapping[str, Any]) -> None:
        from perijove.display import OutputList

        self.nb_man, self.job, self.options = nb_man, job, options
        self.outputs = [OutputList() for _ in nb_man.nb.cells]
        self.current: int | None = None
        self.state = ""
        self.error: BaseException | None = None

    def happened(self, happening: Any) -> None:
        content = happening.content
        if happening.kind == "changed" and content["state"] != self.state:
            self.state = content["state"]
            why = f": {self.job.reason}" if self.job.reason else ""
            self._say(f"job {self.job.label} {self.state}{why}")
        elif happening.kind == "progress" and "cell" in content:
            self._reach(int(content["cell"]))
        elif happening.kind == "output" and 0 <= int(content.get("cell", -1)) < len(self.outputs):
            self._output(int(content["cell"]), content)
        elif happening.kind == "over":
            self.error = happening.error

    def _say(self, text: str) -> None:
        bar = getattr(self.nb_man, "pbar", None)
        if bar is None or bar.disable:
            log.info("Perijove %s", text)
        else:
            # A line of its own would tear the bar apart.
            bar.set_postfix_str(text)

    def _reach(self, index: int) -> None:
        cells = self.nb_man.nb.cells
        if self.current is not None and self.current != index:
            self.nb_man.cell_complete(cells[self.current], cell_index=self.current)
        self.current = index if index < len(cells) else None
        if self.current is not None:
            self.nb_man.cell_start(cells[index], cell_index=index)

    def _output(self, index: int, line: dict[str, Any]) -> None:
        self.outputs[index].show({key: value for key, value in line.items() if key != "cell"})
        self._write(index)
        self.nb_man.autosave_cell()
        self._echo(line)

    def _write(self, index: int) -> None:
        import nbformat

        cell = self.nb_man.nb.cells[index]
        if cell.cell_type == "code":
            kept = [
                {k: v for k, v in each.items() if k != "transient"} for each in self.outputs[index].outputs
            ]
            cell.outputs = [nbformat.from_dict(each) for each in kept]

    def _echo(self, line: dict[str, Any]) -> None:
        from perijove.display import text_of

        if line.get("output_type") != "stream":
            return
        text = text_of(line["text"])
        if target := self.options.get("stderr_file" if line["name"] == "stderr" else "stdout_file"):
            target.write(text)
            target.flush()
        if self.options.get("log_output"):
            log.info(text.rstrip("\n"))

    def finish(self) -> None:
        """Take over the executed notebook, and leave an error where the job did not succeed."""
        if self.error is not None:
            raise self.error
        executed = self._executed()
        for index, cell in enumerate(self.nb_man.nb.cells):
            if executed is not None and index < len(executed.cells):
                ran = executed.cells[index]
                cell.metadata.papermill = ran.metadata.get("papermill", cell.metadata.papermill)
                if cell.cell_type == "code":
                    cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
        if executed is not None and "language_info" in executed.metadata:
            self.nb_man.nb.metadata["language_info"] = executed.metadata["language_info"]
        if self.job.state != "succeeded":
            self._fail()
        elif self.current is not None:
            self._reach(len(self.nb_man.nb.cells))

    def _executed(self) -> Any:
        import nbformat
        from papermill.execute import ERROR_MARKER_TAG

        from perijove.model.errors import NotFoundError

        try:
            executed = nbformat.reads(self.job.output("notebook.ipynb").decode(), as_version=4)
        except NotFoundError:
            return None
        # The job's papermill has put its own notes on a failure between the cells; ours will do so too.
        executed.cells = [
            cell for cell in executed.cells if ERROR_MARKER_TAG not in cell.metadata.get("tags", [])
        ]
        return executed

    def _fail(self) -> None:
        import nbformat

        from perijove.sync import LOOP

        cells = self.nb_man.nb.cells
        codes = [index for index, cell in enumerate(cells) if cell.cell_type == "code"]
        index = self.current if self.current is not None else codes[0]
        if cells[index].cell_type != "code":
            index = next((code for code in codes if code >= index), codes[-1])
        if not any(each.output_type == "error" for cell in cells for each in cell.get("outputs", [])):
            failure = LOOP.run(self.job.async_job.failure())
            error = {"output_type": "error", "ename": "JobFailedError", "evalue": str(failure)}
            cells[index].outputs.append(nbformat.from_dict({**error, "traceback": [str(failure)]}))
        self.nb_man.cell_exception(cells[index], cell_index=index)
        self.nb_man.cell_complete(cells[index], cell_index=index)
