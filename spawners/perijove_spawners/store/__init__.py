"""The content-addressed store: files and folders under the digest of their bytes, in a folder or a bucket.

A file becomes visible whole or not at all, and is checked again whenever it is read. A file's name is
``sha256:`` and 64 hexadecimal digits; a folder's is ``sha256-tree:`` and those of its manifest.
"""

from perijove.model.trees import Entry, Manifest, is_tree
from perijove_spawners.store.content import Store, Stored, Writer
from perijove_spawners.store.errors import CorruptError, FullError
from perijove_spawners.store.place import CHUNK, Blob

__all__ = [
    "CHUNK",
    "Blob",
    "CorruptError",
    "Entry",
    "FullError",
    "Manifest",
    "Store",
    "Stored",
    "Writer",
    "is_tree",
]
