"""What goes into a job and comes out of it: inputs, images given as archives, outputs, seclusion."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from perijove.model import Capabilities, FieldError, JobSpec
from perijove_hub.policy.volumes import SYSTEM_TARGETS
from perijove_spawners.launcher import ARCHIVE
from perijove_spawners.places import Place, lies_in

_MOST_FOLDERS = 32
_ARCHIVE = re.compile(rf"{ARCHIVE}(sha256:[0-9a-f]{{64}})")


def files_of(spec: JobSpec) -> dict[str, str]:
    """The files of the store that the job takes, by the field that names them."""
    digests = {f"inputs.{name}": digest for name, digest in spec.inputs.items()}
    if spec.function:
        digests["function"] = spec.function
    if spec.image and (archive := _ARCHIVE.fullmatch(spec.image)):
        digests["image"] = archive[1]
    return digests


def file_errors(spec: JobSpec, owns: Callable[[str], bool]) -> list[FieldError]:
    """Whether the user uploaded the files that the job takes."""
    return [
        FieldError(name, digest, "no such file was uploaded by you; POST it to /files first")
        for name, digest in files_of(spec).items()
        if not owns(digest)
    ]


def archive_errors(spec: JobSpec, launcher: Capabilities) -> list[FieldError]:
    """Whether an image given as an archive is well written, and the launcher loads archives."""
    image = spec.image or ""
    if not image.startswith(ARCHIVE):
        return []
    elif not _ARCHIVE.fullmatch(image):
        text = f"must be {ARCHIVE}sha256: and the 64 hexadecimal digits of an uploaded file"
    elif launcher.containers and "archives" not in launcher.features:
        text = f"images given as archives are not supported by launcher {launcher.name}"
    else:
        return []
    return [FieldError("image", image, text)]


def program_errors(spec: JobSpec, launcher: Capabilities) -> list[FieldError]:
    """Whether it can be sealed, or run the image's own program."""
    errors = []
    if spec.entrypoint and not launcher.containers:
        text = f"not supported by launcher {launcher.name}: it runs no images"
        errors.append(FieldError("entrypoint", spec.entrypoint, text))
    if spec.sealed and spec.ports:
        text = "a sealed job has no network, and nobody could reach them; leave out ports or sealed"
        errors.append(FieldError("ports", ", ".join(map(str, spec.ports)), text))
    return errors


def output_errors(spec: JobSpec, launcher: Capabilities, volumes: Sequence[str]) -> list[FieldError]:
    """Whether the launcher can take each output from its place; `volumes` are where the job sees its own."""
    errors = []
    for name, text in spec.outputs.items():
        if said := _wrong(Place.parse(text), spec, launcher, volumes):
            errors.append(FieldError(f"outputs.{name}", text, said))
    outside = {place.folder for text in spec.outputs.values() if (place := Place.parse(text)).absolute}
    if len(outside) > _MOST_FOLDERS:
        said = f"absolute places in more than {_MOST_FOLDERS} folders"
        errors.append(FieldError("outputs", str(len(outside)), said))
    return errors


def _wrong(place: Place, spec: JobSpec, launcher: Capabilities, volumes: Sequence[str]) -> str:
    if place.descriptor is not None:
        return _wrong_descriptor(place.descriptor, spec, launcher)
    if place.kind == "record":
        return ""
    if not place.absolute:
        named = place.parts or place.kind == "dir"
        return "" if named else f"names no file of $PERIJOVE_JOB_DIR/output: {place.rest}"
    if not launcher.containers:
        return (
            f"launcher {launcher.name} has the node's own folders, of which none is made for the job; "
            "give a path without / at its start: it is in $PERIJOVE_JOB_DIR/output"
        )
    return _wrong_folder(place.folder, volumes)


def _wrong_descriptor(number: int, spec: JobSpec, launcher: Capabilities) -> str:
    streams: dict[int, tuple[str, Any]] = {1: ("stdout", spec.stdout), 2: ("stderr", spec.stderr)}
    if number not in streams:
        lacks = "stdin" not in launcher.features
        return f"file descriptors from 3 on are not supported by launcher {launcher.name}" if lacks else ""
    field, redirected = streams[number]
    return f"{field} sends that to {redirected}; leave out one of the two" if redirected else ""


def _wrong_folder(folder: str, volumes: Sequence[str]) -> str:
    if folder == "/":
        return "a file directly in / cannot be kept; write it into a folder, as /data/result.csv"
    if top := next((top for top in SYSTEM_TARGETS if lies_in(folder, top)), None):
        said = f"folder {folder} would become one of the job's own, which none in {top} may"
        return f"{said}; use another, as /data"
    volume = next((one for one in volumes if lies_in(folder, one) or lies_in(one, folder)), None)
    if volume is not None:
        return f"folder {folder} would become one of the job's own, but its volume {volume} is there"
    return ""
