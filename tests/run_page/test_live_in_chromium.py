"""The page that `dev --keep` serves, in a browser. Part of `make pages`, and of the night."""

from __future__ import annotations

import pytest

from run_page.told_plane import CHROMIUM
from run_page.watched_plane import watched

async_api = pytest.importorskip("playwright.async_api", reason="playwright is not installed: pip install --group pages")
pytestmark = [pytest.mark.pages, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")]


async def test_served_page_follows_its_run_cancels_it_and_runs_it_again() -> None:
    async with watched() as (plane, client, first), async_api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, complaints = await browser.new_page(), []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(str(client.base_url))
        assert await page.title() == "p: running"
        await page.get_by_role("button", name="Cancel").click()
        await page.get_by_role("button", name="Run again").click()
        await page.wait_for_url(lambda url: not url.endswith(str(first)))
        await page.get_by_role("button", name="Cancel").wait_for()
        posted = await plane.execute("p")
        await page.locator(f"#runs a[href='{posted}']").wait_for()
        assert await page.locator("#runs a").count() == 3
        assert complaints == []
        await browser.close()
