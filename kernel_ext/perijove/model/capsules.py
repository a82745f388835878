"""The index of a capsule: a run of a workflow as one zip file, for others to look at and to run again."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from perijove.model.records import Record
from perijove.model.runs import Run
from perijove.model.values import Digest

VERSION = 1
INDEX, WORKFLOW, RECORDS, README = "capsule.json", "workflow.json", "records.json", "README.txt"
CONTENT = re.compile(r"(code|contents)/[A-Za-z0-9._#-]{1,200}")
"""What the members of the zip that hold content are called: nothing that could lie elsewhere."""
MEMBERS = 1_000_000
"""In one capsule at most."""
DOCUMENT_BYTES = 256 << 20
"""Of each of its JSON documents at most."""


class CapsuleContent(Record):
    """A file or folder that the workflow names."""

    size: Annotated[int, Field(ge=0)] | None = None
    """Bytes, of a folder those of its list of files; None where that is no longer known."""
    path: str | None = None
    """The member of the zip that holds it; None where the capsule has its digest only."""

    @field_validator("path")
    @classmethod
    def _plain(cls, value: str | None) -> str | None:
        if value is not None and not CONTENT.fullmatch(value):
            raise ValueError("must be code/NAME or contents/NAME")
        return value


class CapsuleIndex(Record):
    """What ``capsule.json`` holds. A folder's content is its list of files, which are listed too."""

    version: int = VERSION
    run: Run
    contents: dict[Digest, CapsuleContent] = Field(default_factory=dict)
