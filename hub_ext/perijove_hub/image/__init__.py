"""The notebook image: built once from what is installed here, and again only when that changes."""

from perijove_hub.image.build import build_image

__all__ = ["build_image"]
