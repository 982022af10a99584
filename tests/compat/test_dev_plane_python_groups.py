"""The Python plane's stores and registries: each topic's recorded calls in their order, on one plane."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from compat.dev_plane_replay import Driver, Record, differences, playbook_text, substitute, substitute_path
from compat.dev_plane_stage import RECORDED
from noetl_worker.authoring.dev.settings import PlaneSettings

GROUPS = {
    "identity": r"identity-(health|api-health|api-pool-status|response-headers)",
    "catalog": r"catalog-.*",
    "execute": r"execute-.*",
    "postgres": r"tool-postgres-(direct|noauth)-execute",
    "vars": r"vars-.*",
    "credential": r"credential-(register|get).*|pyworker-get-api-credentials-sample-bearer",
    "credential-without-tags": r"pyworker-get-api-credentials-sample-pg",
    "keychain": r"keychain-(get|set|list).*",
    "runtime": r"runtime-.*|pyworker-post-api-worker-pool-register",
    "result": r"result-(put|resolve|get|list).*",
    "unknown": r"execution-(status|events)-.*|(cancellation-check|cancel)-unknown|batch-status-(404|not-a-number)",
    "claim": r"claim-(404|422|405).*|command-get-404",
}


def cases_of(group: str) -> list[Record]:
    return [record for record in RECORDED if re.fullmatch(GROUPS[group], record["case"])]


async def prepare(driver: Driver, group: str) -> None:
    """What stood on the real plane before the group's first call."""
    if group in ("execute", "postgres"):
        for name in ("no-start", "tool-missing", "one-step", "tool-postgres-direct", "tool-postgres-noauth"):
            driver.plane.register_playbook(playbook_text(name))
    if group.startswith("credential"):
        names = ("db_host", "db_port", "db_user", "db_password", "db_name")
        body: Record = {"name": "sample_pg", "type": "postgres", "data": dict.fromkeys(names, "sample")}
        if group == "credential":
            body |= {"tags": ["sample"], "description": "made up"}
        await driver.send("POST", "/api/credentials", body)
    if group == "vars":
        await driver.send("POST", "/api/vars/767537004438356843", {"variables": {"d": None}})
    if group == "keychain":
        await driver.plane.execute(driver.plane.register_playbook(KEYCHAIN_WITH_MAP).path)
    if group == "runtime":
        await driver.send("POST", "/api/worker/pool/register", {"name": "worker-rec-a", "hostname": "localhost"})
    if group == "result":
        body = {"name": "sec", "data": {"password": "sample-password", "token": "sample-token", "note": "plain"}}
        await driver.send("PUT", "/api/api/result/767537020863251321", body)


KEYCHAIN_WITH_MAP = playbook_text("keychain-ref").replace("rec/keychain-ref", "rec/keychain-ref-map")


@pytest.mark.parametrize("group", sorted(GROUPS))
async def test_recorded_calls_get_answers_of_the_same_shape(group: str) -> None:
    assert cases_of(group), "the group names no recorded case"
    wrong: list[str] = []
    prefix: Any = "/api/api" if group == "result" else "/api"
    async with Driver(PlaneSettings(result_prefix=prefix)) as driver:
        await prepare(driver, group)
        known: dict[Any, Any] = {}
        if group == "keychain":
            known["767537005814088562"] = str(driver.plane.catalog.find(path="rec/keychain-ref-map")[0])  # type: ignore[index]
        for record in cases_of(group):
            wrong += await replay(driver, record, known)
    assert wrong == []


async def sent(driver: Driver, record: Record, known: dict[Any, Any]) -> httpx.Response:
    path, body = substitute_path(record["path"], known), record.get("req")
    if isinstance(body, str):
        return await driver.send(record["method"], path, content=body)
    return await driver.send(record["method"], path, substitute(body, known))


async def replay(driver: Driver, record: Record, known: dict[Any, Any]) -> list[str]:
    answer = await sent(driver, record, known)
    name = record["case"]
    if answer.status_code != record["status"]:
        return [f"{name}: status {record['status']} recorded, {answer.status_code} given: {answer.text[:200]}"]
    if ("retry-after" in record["hdr"]) != ("retry-after" in answer.headers):
        return [f"{name}: Retry-After"]
    given = answer.json() if answer.content else None
    learn(record["resp"], given, known)
    recorded = record["resp"]
    if name == "result-resolve-not-a-ref":
        recorded = str(recorded)
    if name == "identity-api-pool-status":
        assert set(recorded) == set(given or ())
    return [f"{name}{line}" for line in differences(recorded, given)]


def learn(recorded: Any, given: Any, known: dict[Any, Any]) -> None:
    """References and ids that later calls of the group name."""
    if isinstance(recorded, dict) and isinstance(given, dict):
        for key in ("ref", "execution_id", "catalog_id"):
            if isinstance(recorded.get(key), str) and isinstance(given.get(key), str):
                known[recorded[key]] = given[key]
                known[quote(recorded[key], safe="")] = quote(given[key], safe="")


async def test_422_bodies_name_the_field() -> None:
    async with Driver(PlaneSettings()) as driver:
        for record in cases_of("claim"):
            if record["status"] == 422:
                given = (await sent(driver, record, {})).json()
                said, recorded = (
                    [(one["type"], one["loc"]) for one in body["detail"]] for body in (given, record["resp"])
                )
                assert said == recorded, record["case"]


async def test_the_single_prefix_is_404_on_the_release_that_doubles_it() -> None:
    async with Driver(PlaneSettings(result_prefix="/api/api")) as driver:
        answer = await driver.send("PUT", "/api/result/1", {"name": "a", "data": 1})
        assert (answer.status_code, json.loads(answer.content)) == (404, {"detail": "Not Found"})
