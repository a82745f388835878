"""What is known of images and platforms before a step runs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from perijove.model import JobSpec, Node

_PINNED = re.compile(r"@(sha256:[0-9a-f]{64})$|^archive:(sha256:[0-9a-f]{64})$")
_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}


def is_pinned(image: str) -> bool:
    """Whether the reference says its digest itself."""
    return _PINNED.search(image) is not None


def digest_of(image: str, nodes: Sequence[Node]) -> str | None:
    """Of the image that a reference means.

    A reference with a digest says it itself. For a tag it is what the nodes have under that name, when all
    that have it agree; None when none has it or they differ.
    """
    if match := _PINNED.search(image):
        return match[1] or match[2]
    known = {digest for node in nodes if (digest := node.image_digests.get(image))}
    return known.pop() if len(known) == 1 else None


def platform_of(spec: JobSpec, launcher: str, nodes: Sequence[Node]) -> str:
    """``linux/amd64``, of the nodes that could run it; all of them where they differ."""
    archs = {
        _ARCH.get(node.machine.arch, node.machine.arch)
        for node in nodes
        if any(offered.name == launcher for offered in node.launchers)
        and (spec.node is None or spec.node == node.name)
        and spec.constraints.items() <= node.labels.items()
    }
    return f"linux/{'+'.join(sorted(archs))}"
