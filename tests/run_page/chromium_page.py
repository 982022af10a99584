"""The execution page in the system's Chromium, driven by playwright."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from noetl_worker.authoring.run_page.page import render_page
from noetl_worker.authoring.run_page.run import ExecutionRun

WIDE, PHONE = {"width": 1360, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def opened(
    browser: Any, run: ExecutionRun, folder: Path, *, theme: str = "light", size: Any = WIDE, **shown: Any
) -> Iterator[Any]:
    """The page of a run in a tab that must neither ask anybody nor complain."""
    file = folder / "run.html"
    file.write_text(render_page(run, **shown), encoding="utf-8")
    context = browser.new_context(color_scheme=theme, viewport=size)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: complaints.append(request.url) if request.url.partition("#")[0] != file.as_uri() else None,
    )
    page.goto(file.as_uri())
    yield page
    assert [text for text in complaints if not text.startswith("data:")] == []
    context.close()


def contrasts(page: Any) -> list[Any]:
    """The texts with less contrast than 4.5 to 1."""
    found: list[Any] = page.evaluate(_CONTRASTS)
    return found


_CONTRASTS = """() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (color) => [0.2126, 0.7152, 0.0722]
    .reduce((sum, share, at) => sum + share * linear(color[at] / 255), 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parts(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const node of document.querySelectorAll('body *:not(svg *, script, noscript *, .hidden, .skip)')) {
    if (![...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim())) continue;
    if (!node.checkVisibility()) continue;
    const [one, other] = [light(parts(getComputedStyle(node).color)), light(ground(node))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) low.push([node.className || node.tagName, node.textContent.slice(0, 20), ratio.toFixed(2)]);
  }
  return low;
}"""
