"""A run as an RO-Crate 1.1 of the profile Workflow Run Crate: its provenance in terms that others know.

https://www.researchobject.org/workflow-run-crate/profiles/0.5/workflow_run_crate
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import quote

from rocrate.model import ComputationalWorkflow, ComputerLanguage, ContextEntity, File, Person
from rocrate.rocrate import ROCrate

from perijove.model import Output, ResultRecord, Run, Workflow
from perijove.model.capsules import RECORDS, WORKFLOW
from perijove_hub.workflows.capsule import Source, code_files, documents, write_zip

METADATA = "ro-crate-metadata.json"
_TERMS = "https://w3id.org/ro/terms/workflow-run/context"
_PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
_TYPES = {"text": "Text", "integer": "Integer", "number": "Number", "boolean": "Boolean"}
_DONE = frozenset({"ok", "cached"})


def write(
    target: IO[bytes], run: Run, workflow: Workflow, records: Sequence[ResultRecord], source: Source
) -> None:
    """Write the crate as a zip: its description, the workflow, the records and the code."""
    made = documents(run, workflow, records)
    code = {path: digest for digest, path in code_files(workflow).items() if source.size(digest) is not None}
    described = describe(run, workflow, records, code)
    made = {name: made[name] for name in (WORKFLOW, RECORDS)}
    made[METADATA] = json.dumps(described, ensure_ascii=False, indent=1, sort_keys=True).encode()
    write_zip(target, made, code, source.open)


def describe(
    run: Run, workflow: Workflow, records: Iterable[ResultRecord], code: dict[str, str]
) -> dict[str, Any]:
    """``ro-crate-metadata.json``. `code`: file in the crate -> digest."""
    return _Description(run, workflow, code).made(records)


class _Description:
    def __init__(self, run: Run, workflow: Workflow, code: dict[str, str]) -> None:
        self.run, self.workflow, self.code = run, workflow, code
        self.crate = ROCrate(version="1.1")
        self.crate.metadata.extra_contexts.append(_TERMS)
        self.contents: dict[str, Any] = {}
        self.paths = {digest: path for path, digest in code.items()}
        self.agent = self._add("#owner", Person, {"name": run.owner})

    def made(self, records: Iterable[ResultRecord]) -> dict[str, Any]:
        crate, run = self.crate, self.run
        crate.name = f"{run.name}, run {run.id}"
        crate.description = self.workflow.description or f"A run of the workflow {run.name} by Perijove"
        crate.datePublished = _time(run.ended or run.submitted)
        profiles = [
            self._add(
                url, ContextEntity, {"@type": "CreativeWork", "name": name, "version": url.split("/")[-1]}
            )
            for url, name in _PROFILES.items()
        ]
        crate.root_dataset["conformsTo"] = profiles
        main = self._main()
        tools = {name: self._tool(name) for name in self.workflow.steps}
        main["hasPart"] = list(tools.values())
        files = [main, self._file(RECORDS), *(tool for tool in tools.values() if tool.type != _APP)]
        actions = [self._action(record, tools) for record in records]
        whole = self._whole(main)
        crate.root_dataset["mentions"] = [whole, *actions]
        crate.root_dataset["hasPart"] = [*files, *self.contents.values()]
        described: dict[str, Any] = crate.metadata.generate()
        return described

    def _main(self) -> Any:
        language = self._add("#perijove", ComputerLanguage, {"name": "Perijove workflow, version 1"})
        main = ComputationalWorkflow(self.crate, source=None, dest_path=WORKFLOW)
        self.crate.add(main)
        self.crate.mainEntity = main
        main["name"], main["programmingLanguage"] = self.run.name, language
        main["input"] = [
            self._add(
                f"#parameter-{quote(name)}",
                ContextEntity,
                {
                    "@type": "FormalParameter",
                    "name": name,
                    "additionalType": _TYPES.get(one.type, "Thing"),
                    "description": one.description,
                    "valueRequired": one.required,
                },
            )
            for name, one in self.workflow.parameters.items()
        ]
        return main

    def _tool(self, name: str) -> Any:
        """What a step runs: a file of code, or a command."""
        step = self.workflow.steps[name]
        digest = step.notebook or step.function
        if digest in self.paths:
            properties = {"@type": ["File", "SoftwareSourceCode"], "name": name, "sha256": _hex(digest)}
            return self._file(self.paths[digest], properties)
        text = " ".join(step.command) if step.command else step.script or step.what
        return self._add(
            f"#step-{quote(name)}", ContextEntity, {"@type": _APP, "name": name, "description": text[:1000]}
        )

    def _whole(self, main: Any) -> Any:
        run = self.run
        given = [self._value(f"#given-{quote(name)}", name, value) for name, value in run.parameters.items()]
        for one, name in zip(given, run.parameters, strict=True):
            one["exampleOfWork"] = {"@id": f"#parameter-{quote(name)}"}
        properties: dict[str, Any] = {
            "@type": "CreateAction",
            "name": f"Run {run.id} of {run.name}",
            "startTime": _time(run.submitted),
            "actionStatus": _status(run.state.value == "succeeded"),
        }
        if run.ended is not None:
            properties["endTime"] = _time(run.ended)
        if run.reason is not None and run.state.value != "succeeded":
            properties["error"] = run.reason.message
        action = self._add(f"#run-{run.id}", ContextEntity, properties)
        action["instrument"], action["agent"], action["object"] = main, self.agent, given
        return action

    def _action(self, record: ResultRecord, tools: dict[str, Any]) -> Any:
        job = record.job
        properties: dict[str, Any] = {
            "@type": "CreateAction",
            "name": record.step,
            "actionStatus": _status(record.status in _DONE),
            "description": f"{record.status}; job {job.label}" if job else record.status,
        }
        if job is not None and job.started is not None:
            properties["startTime"] = _time(job.started)
        if job is not None and job.ended is not None:
            properties["endTime"] = _time(job.ended)
        if job is not None and job.reason is not None and record.status not in _DONE:
            properties["error"] = job.reason.message or job.reason.code.value
        identity = f"#action-{quote(record.step, safe='')}"
        action = self._add(identity, ContextEntity, properties)
        action["instrument"] = tools[record.step.partition("[")[0]]
        action["agent"] = self.agent
        action["object"] = [self._content(digest, name) for name, digest in record.inputs.items()]
        action["result"] = [self._output(identity, name, one) for name, one in record.outputs.items()]
        action["resourceUsage"] = [
            self._value(f"{identity}-{name}", name, value)
            for name in ("wall_seconds", "cpu_seconds", "gpu_seconds", "memory_peak")
            if (value := getattr(record, name)) is not None
        ]
        if record.image:
            image = {"@type": "ContainerImage", "name": record.image}
            if record.image_digest:
                image["sha256"] = _hex(record.image_digest)
            if record.image_manifest:
                image["identifier"] = record.image_manifest
            action["containerImage"] = self._add(
                f"#image-{quote(record.image, safe='')}", ContextEntity, image
            )
        return action

    def _output(self, action: str, name: str, output: Output) -> Any:
        if output.digest is None:
            return self._value(f"{action}-{quote(name, safe='')}", name, output.value)
        return self._content(output.digest, output.name or name, output.size)

    def _content(self, digest: str, name: str, size: int | None = None) -> Any:
        """A file that may not be in the crate, by its digest as a URI (RFC 6920)."""
        if digest in self.paths:
            return self._file(self.paths[digest])
        raw = base64.urlsafe_b64encode(bytes.fromhex(_hex(digest))).decode().rstrip("=")
        kind = "Dataset" if digest.startswith("sha256-tree:") else "File"
        properties = {"@type": kind, "name": name, "sha256": _hex(digest)}
        if size is not None:
            properties["contentSize"] = str(size)
        content = self._add(f"ni:///sha-256;{raw}", ContextEntity, properties)
        self.contents[content.id] = content
        return content

    def _value(self, identity: str, name: str, value: Any) -> Any:
        text = value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
        return self._add(identity, ContextEntity, {"@type": "PropertyValue", "name": name, "value": text})

    def _file(self, path: str, properties: dict[str, Any] | None = None) -> Any:
        known = self.crate.dereference(path)
        if known is not None:
            return known
        return self.crate.add(File(self.crate, source=None, dest_path=path, properties=properties))

    def _add(self, identity: str, kind: Any, properties: dict[str, Any]) -> Any:
        known = self.crate.dereference(identity)
        return known or self.crate.add(kind(self.crate, identity, properties=properties))


_APP = "SoftwareApplication"


def _status(good: bool) -> dict[str, str]:
    name = "CompletedActionStatus" if good else "FailedActionStatus"
    return {"@id": f"http://schema.org/{name}"}


def _hex(digest: str) -> str:
    return digest.rpartition(":")[2]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
