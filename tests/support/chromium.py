"""A Chromium of a test's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, Route, sync_playwright
from tests.conftest import absent

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]


@contextmanager
def chromium(*flags: str) -> Iterator[Page]:
    """A page of it, which reaches this machine only; fails or skips where there is no Chromium."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        absent("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*FLAGS, *flags])
        page = browser.new_page()
        page.set_default_timeout(90_000)
        page.route("https://**/*", _refused)
        try:
            yield page
        finally:
            browser.close()


def _refused(route: Route) -> None:
    route.abort()
