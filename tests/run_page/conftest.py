"""The browser of the tests with Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from run_page.told_plane import CHROMIUM


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install --group pages")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
