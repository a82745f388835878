"""An executed notebook as a page: one HTML file with its pictures in it, by nbconvert."""

from __future__ import annotations

from perijove.model.errors import UserError


def page(notebook: bytes, title: str, *, code: bool = True) -> str:
    """The page of a notebook, as JSON; :class:`UserError` when it is none or nbconvert is not installed."""
    try:
        import nbformat
        from nbconvert.exporters import HTMLExporter
    except ImportError as error:
        raise UserError(
            f"{error.name} makes the page, and is not installed here: perijove[kernel]"
        ) from error
    try:
        content = nbformat.reads(notebook.decode(), as_version=4)
    except (ValueError, nbformat.reader.NotJSONError) as error:
        raise UserError(f"{title} is no notebook: {error}") from error
    exporter = HTMLExporter(embed_images=True, exclude_input=not code, exclude_input_prompt=not code)
    text, _ = exporter.from_notebook_node(content, {"metadata": {"name": title}})
    return str(text)
