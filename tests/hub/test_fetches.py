"""Which requests of browsers the hub's pages are not for."""

from __future__ import annotations

import pytest

from perijove_hub.auth.fetches import is_foreign

HERE = {"Sec-Fetch-Site": "same-origin"}
SCRIPT = {**HERE, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
PAGE = {**HERE, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


API, TOKENS = "/hub/api/user", "/hub/token"


@pytest.mark.parametrize(
    ("path", "headers", "foreign"),
    [
        (TOKENS, {}, False),  # no browser
        (TOKENS, PAGE, False),
        (TOKENS, {**PAGE, "Referer": "https://h/user/eve/x"}, False),
        (TOKENS, SCRIPT, True),
        (TOKENS, {**SCRIPT, "Referer": "https://h/hub/home"}, True),  # which a script may claim
        (TOKENS, {**SCRIPT, "Authorization": "Bearer t"}, True),  # so it may this
        (TOKENS, {**PAGE, "Sec-Fetch-Dest": "iframe", "Referer": "https://h/user/eve/x"}, True),
        (TOKENS, {**SCRIPT, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, True),
        (TOKENS, {**SCRIPT, "Sec-Fetch-Site": "cross-site"}, False),  # may read nothing, and posts no token
        (API, SCRIPT, True),  # says not where it is from
        (API, {**SCRIPT, "Referer": "https://h/user/eve/x"}, True),
        (API, {**SCRIPT, "Referer": "https://h/hub-of-eve/x"}, True),
        (API, {**SCRIPT, "Referer": "https://h/hub/admin"}, False),
        (API, {**SCRIPT, "Referer": "https://h/user/eve/x", "Authorization": "Bearer t"}, False),
        (API, {**SCRIPT, "Referer": "https://h/hub/admin", "Sec-Fetch-Mode": "no-cors"}, True),
        ("/hub/apis", {**SCRIPT, "Referer": "https://h/hub/admin"}, True),
    ],
)
def test_scripts_and_frames_of_other_pages_are_foreign(
    path: str, headers: dict[str, str], foreign: bool
) -> None:
    assert is_foreign(headers, path, "/hub/") is foreign
