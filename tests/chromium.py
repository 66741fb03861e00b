"""Headless Chromium for the tests of pages; they skip with a reason where it or playwright is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = (
    "--headless --no-sandbox --no-first-run --disable-background-networking --disable-component-update --disable-sync"
).split()


@contextmanager
def open_chromium(*flags: str) -> Iterator[Any]:
    """Playwright's handle of the browser, started with further flags."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright (extra `browser`) is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=[*FLAGS, *flags])
        yield browser
        browser.close()
