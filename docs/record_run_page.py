"""docs/run-page.png: the page of a run of examples/demo.yaml, as Chromium shows it. Needs the group `pages`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from noetl_worker.cli import app_for

HERE = Path(__file__).parent
PLAYBOOK = HERE.parent / "examples/demo.yaml"
SIZE = {"width": 1240, "height": 860}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.html")
        words = ["dev", str(PLAYBOOK), "--quiet", "--report", str(file)]
        app_for(words)(words, standalone_mode=False)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport=SIZE, color_scheme="light", device_scale_factor=1.5)
            page.goto(file.as_uri())
            page.get_by_role("treeitem", name="each").locator(".turn").click()
            page.get_by_role("treeitem", name="each [1]").click()
            page.screenshot(path=HERE / "run-page.png")
            browser.close()


if __name__ == "__main__":
    main()
