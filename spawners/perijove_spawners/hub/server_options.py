"""What a user may choose for their notebook server, and the form to choose it with."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perijove.model import GpuRequest, format_size
from perijove.model.values import ImageRef, Size


class ServerOptions(BaseModel):
    """The choices; what is None is left to the site."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: ImageRef | None = None
    cpus: Annotated[float, Field(ge=0.01, le=100_000, allow_inf_nan=False)] | None = None
    memory: Annotated[Size, Field(ge=4 << 20)] | None = None
    gpus: GpuRequest | None = None

    @classmethod
    def from_form(cls, form: Mapping[str, list[str]]) -> Self:
        """From the fields of an HTML form; empty ones count as left out. Raises as :meth:`parse` does."""
        given = {name: form[name][0].strip() for name in cls.model_fields if form.get(name)}
        return cls.parse({name: text for name, text in given.items() if text})

    @classmethod
    def parse(cls, given: Any) -> Self:
        """From anything; ``ValueError`` that names the field, what was given and what is accepted."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "options"
            raise ValueError(f"{field}: {first['msg']} (given: {str(first['input'])[:100]})") from error

    def merged(self, chosen: ServerOptions) -> ServerOptions:
        """These, with what was `chosen` in their place."""
        return self.model_copy(update=chosen.given())

    def given(self) -> dict[str, Any]:
        """The fields that are not None, as they are."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}

    def spec_fields(self, containers: bool) -> dict[str, Any]:
        """The same in the words of a job's specification; an image only means something to containers."""
        fields = self.given()
        if "cpus" in fields:
            fields["cpu"] = fields.pop("cpus")
        if not containers:
            fields.pop("image", None)
        return fields


def launcher_of(site: Mapping[str, Any], wanted: str = "") -> tuple[str, bool]:
    """Which launcher a server gets, and whether it runs images, by what ``GET /site`` answered."""
    default = site.get("default_launcher") or ""
    if not wanted or wanted == default:
        return default, bool(site.get("containers"))
    return wanted, wanted != "process"


def form_html(site: Mapping[str, Any], defaults: ServerOptions, containers: bool) -> str:
    """The inside of the hub's form, with what is free now. All values are escaped."""
    free, largest = site.get("free") or {}, site.get("largest") or {}
    rows = []
    if containers:
        rows.append(_row("image", "Image", _images(site, defaults), ""))
    cpus = f'min="0.1" step="0.1" max="{float(largest.get("cpu", 0)):g}" value="{defaults.cpus or 1:g}"'
    rows.append(_row("cpus", "CPU cores", _number("cpus", cpus), f"{float(free.get('cpu', 0)):g} free now"))
    memory = (
        f'type="text" pattern=" *[0-9.]+ *[KMGTkmgt]?i?[Bb]? *" value="{format_size(defaults.memory or 0)}"'
    )
    size = f'<input class="form-control" id="memory" name="memory" {memory}>'
    rows.append(_row("memory", "Memory", size, f"{format_size(int(free.get('memory', 0)))} free now"))
    if gpus := int(largest.get("gpus", 0)):
        count = defaults.gpus.count if defaults.gpus else 0
        field = _number("gpus", f'min="0" step="1" max="{gpus}" value="{count}"')
        rows.append(_row("gpus", "GPUs", field, f"{int(free.get('gpus', 0))} free now"))
    note = "<p>A server that asks for more than is free waits in the queue like any job.</p>"
    return "\n".join([*rows, note])


def _images(site: Mapping[str, Any], defaults: ServerOptions) -> str:
    chosen = defaults.image or site.get("default_image") or ""
    names = dict.fromkeys([name for name in (chosen, *(site.get("images") or [])) if name])
    said = site.get("descriptions") or {}
    texts = {name: f"{name} - {said[name]}" if said.get(name) else name for name in names}
    options = "".join(
        f'<option value="{escape(name)}"{" selected" if name == chosen else ""}>{escape(text)}</option>'
        for name, text in texts.items()
    )
    return f'<select class="form-control" id="image" name="image">{options}</select>'


def _number(name: str, attributes: str) -> str:
    return f'<input class="form-control" id="{name}" name="{name}" type="number" {attributes}>'


def _row(name: str, label: str, field: str, note: str) -> str:
    small = f' <small class="form-text text-muted" id="{name}-free">{escape(note)}</small>' if note else ""
    return f'<div class="form-group mb-3"><label for="{name}">{escape(label)}</label>{small}{field}</div>'
