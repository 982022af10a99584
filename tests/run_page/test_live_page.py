"""The page that `dev --keep` serves: whom it answers, and that it follows its run."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from noetl_worker.models import Dialect
from run_page.told_plane import data_of
from run_page.watched_plane import watched


def origin_of(client: httpx.AsyncClient) -> dict[str, str]:
    parts = urlsplit(str(client.base_url))
    return {"Origin": f"{parts.scheme}://{parts.netloc}"}


async def test_address_leads_to_the_newest_run_with_a_list_of_all(dialect: Dialect) -> None:
    async with watched(dialect) as (plane, client, first):
        second = await plane.execute("p")
        answer = await client.get("", follow_redirects=True)
        data = data_of(answer.text)
        assert (answer.status_code, data["run"]["id"]) == (200, str(second))
        assert [one["id"] for one in data["runs"]] == [str(second), str(first)]
        assert [step["name"] for step in data["steps"]] == ["start"]


async def test_page_may_ask_where_it_came_from_and_nobody_may_frame_or_keep_it() -> None:
    async with watched() as (_, client, execution_id):
        answer = await client.get(f"runs/{execution_id}")
        assert "connect-src 'self'; base-uri 'none'" in answer.text
        assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"


async def test_who_has_no_token_another_name_or_comes_from_elsewhere_gets_nothing() -> None:
    async with watched() as (_, client, execution_id):
        parts = urlsplit(str(client.base_url))
        root, path = f"http://{parts.netloc}", f"{client.base_url}runs/{execution_id}"
        port, ours = parts.port, origin_of(client)
        refused = [
            await client.get(f"{root}/"),
            await client.get(f"{root}/runs/{execution_id}"),
            await client.get(f"{root}/{parts.path[1:-2]}/runs/{execution_id}"),  # all of the token but its end
            await client.get(path, headers={"Host": "evil.example"}),
            await client.get(path, headers={"Host": f"localhost.evil.example:{port}"}),
            await client.get(path, headers={"Origin": "http://evil.example"}),
            await client.get(f"{path}/events", headers={"Origin": "null"}),
            await client.post(f"{path}/again"),
            await client.post(f"{path}/cancel", headers={"Origin": f"http://127.0.0.1:{port + 1}"}),
            await client.post(f"{root}/runs/{execution_id}/again", headers=ours),
        ]
        assert {(answer.status_code, answer.text) for answer in refused} == {(404, "not found")}
        assert len(data_of((await client.get(path)).text)["runs"]) == 1


async def test_it_listens_on_this_machine_alone() -> None:
    async with watched() as (_, client, _id):
        assert urlsplit(str(client.base_url)).hostname == "127.0.0.1"
        assert len(urlsplit(str(client.base_url)).path.strip("/")) >= 32


async def next_data(lines: AsyncIterator[str]) -> Any:
    async for line in lines:
        if line.startswith("data: "):
            return json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream ended")


async def test_stream_tells_the_run_at_once_and_each_time_that_something_happened(dialect: Dialect) -> None:
    async with (
        watched(dialect) as (plane, client, execution_id),
        client.stream("GET", f"runs/{execution_id}/events") as stream,
    ):
        lines = stream.aiter_lines()
        assert stream.headers["content-type"].startswith("text/event-stream")
        data = await next_data(lines)
        assert (data["run"]["status"], data["commands"][0]["state"]) == ("RUNNING", "waiting")
        later = await plane.execute("p")
        data = await next_data(lines)
        assert [one["id"] for one in data["runs"]] == [str(later), str(execution_id)]
        await client.post(f"runs/{execution_id}/cancel", headers=origin_of(client))
        data = await next_data(lines)
        assert data["run"]["status"] == "CANCELLED"


async def test_run_again_has_the_same_workload() -> None:
    async with watched() as (plane, client, execution_id):
        answer = await client.post(f"runs/{execution_id}/again", headers=origin_of(client))
        again = int(answer.json()["id"])
        assert again != execution_id
        assert plane.execution(again).workload == plane.execution(execution_id).workload


async def test_run_that_is_not_there_is_not_found() -> None:
    async with watched() as (_, client, _id):
        ours = origin_of(client)
        answers = [await client.get("runs/5"), await client.get("runs/5/events"), await client.get("runs/x")]
        answers += [await client.post("runs/5/again", headers=ours), await client.post("runs/5/cancel", headers=ours)]
        assert {answer.status_code for answer in answers} == {404}
