"""Text of others, so that it can be read and does nothing: on a terminal, in a page."""

from __future__ import annotations

import html

_JOINERS = "\u200c\u200d"
"""Between letters of Persian, between the parts of an emoji: without a sign, and without effect on others."""


def printable(text: object) -> str:
    """`text` without what would steer a terminal (ECMA-48) or turn around the text beside it (UAX 9).

    Each such character becomes U+FFFD; lines and tabs stay.
    """
    return "".join(c if c.isprintable() or c in "\n\t" or c in _JOINERS else "\ufffd" for c in str(text))


def html_text(text: object) -> str:
    """`text` as HTML that shows it."""
    return html.escape(printable(text))
