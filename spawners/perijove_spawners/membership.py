"""Where a node belongs: what its command line says, and what it was told when it joined."""

from __future__ import annotations

import getpass
import logging
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from perijove.model import OperatorError
from perijove_spawners.joining import Joined, JoinToken, join

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "PERIJOVE_JOIN_TOKEN"  # noqa: S105
"""Variable that may hold the token."""


@dataclass(frozen=True, slots=True)
class Membership:
    """A node's name and its service; of what was not said on the command line, an empty text."""

    node: str = ""
    scheduler: str = ""
    tls: Path | None = None
    """Directory of the keys of the links."""
    store: str = ""
    installation: str = ""


def find_membership(directory: Path, given: Membership, url: str = "", token_file: str = "") -> Membership:
    """Where the node of the state directory `directory` belongs; with a `url` it joins there, once.

    What was `given` wins. The token is read from `token_file` (``-``: standard input), the variable
    :data:`TOKEN_VARIABLE`, or asked for. Raises :class:`OperatorError`.
    """
    joined = Joined.read(directory)
    if url and joined is None:
        node = given.node or socket.gethostname()
        directory.mkdir(parents=True, exist_ok=True)
        joined = join(url, JoinToken.parse(_token(token_file)), node, directory)
        log.info("joined %s as node %s", url, node)
    if joined is None:
        if not given.scheduler:
            raise OperatorError("give --join URL, or --scheduler; this node never joined a service")
        joined = Joined(given.node or socket.gethostname(), given.scheduler, "", "")
    if given.node and given.node != joined.node:
        raise OperatorError(
            f"--name {given.node}: {directory} is of the node {joined.node}; take another --state"
        )
    return Membership(
        joined.node,
        given.scheduler or joined.scheduler,
        given.tls or directory / "tls",
        given.store or joined.store,
        given.installation or joined.installation,
    )


def _token(file: str) -> str:
    try:
        if file:
            return sys.stdin.readline() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"--token-file {file}: {error}") from error
    if given := os.environ.get(TOKEN_VARIABLE):
        return given
    return getpass.getpass("Join token: ") if sys.stdin.isatty() else sys.stdin.readline()
