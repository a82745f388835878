"""Which requests of browsers the hub's pages are not for."""

from __future__ import annotations

import pytest

from perijove_hub.auth.fetches import is_foreign

HERE = {"Sec-Fetch-Site": "same-origin"}
SCRIPT = {**HERE, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
PAGE = {**HERE, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),  # no browser
        (PAGE, False),
        ({**PAGE, "Referer": "https://h/user/eve/x"}, False),
        (SCRIPT, True),  # says not where it is from
        ({**SCRIPT, "Referer": "https://h/user/eve/x"}, True),
        ({**SCRIPT, "Referer": "https://h/hub-of-eve/x"}, True),
        ({**SCRIPT, "Referer": "https://h/hub/admin"}, False),
        ({**SCRIPT, "Referer": "https://h/user/eve/x", "Authorization": "Bearer t"}, False),
        ({**PAGE, "Sec-Fetch-Dest": "iframe", "Referer": "https://h/user/eve/x"}, True),
        ({**SCRIPT, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, True),
        ({**SCRIPT, "Sec-Fetch-Site": "cross-site"}, False),  # which may read nothing, and posts no token
    ],
)
def test_scripts_and_frames_of_other_pages_are_foreign(headers: dict[str, str], foreign: bool) -> None:
    assert is_foreign(headers, "/hub/") is foreign
