"""What a scrape has: every series from the start, none that grows with what commands are called; and who reads it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from integration.house import house
from integration.processes import Probe, WorkerProcess, until, worker_process
from integration.scraped_names import expressions, unknown_in
from noetl_worker.dev.plane import RawCommand
from noetl_worker.models import Dialect
from noetl_worker.observability.tool_times import STATUSES

Series: TypeAlias = dict[tuple[str, tuple[tuple[str, str], ...]], float]
DEPLOY = Path(__file__, "../../../deploy").resolve()
VARIABLES = {"WORKER_METRICS_BIND": "127.0.0.1:0", "WORKER_NATS_LAG_POLL_INTERVAL": "1", "WORKER_MAX_CONCURRENT": "4"}


def series(text: str) -> Series:
    """(sample name, labels) -> value; without the times that the library adds to counters."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def value(found: Series, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


async def scrape(worker: WorkerProcess) -> Series:
    return series(await Probe(int(worker.logged("probes_listening")[0]["port"])).metrics())


TROUBLE_COMMANDS = [
    RawCommand("noop", step="customer_miller"),
    RawCommand("shell", {"command": "exit 3"}, step="customer_smith"),
    RawCommand("shell", {"command": "sleep 20", "timeout": 0.2}, step="a"),
    RawCommand("python", {"code": "result = 'x ' * 200_000"}, step="b"),
    RawCommand("python", {"code": "raise ValueError('miller')"}, step="c"),
    RawCommand("miller_and_sons", {}, step="d"),
]
"""They end in every way, under names that are somebody's."""


@dataclass(frozen=True)
class Scrapes:
    """Of one worker: as it starts, after twenty commands without trouble, after those with."""

    plane: str
    at_start: Series
    after_noops: Series
    at_end: Series


async def worked(dialect: Dialect, directory: Path) -> Scrapes:
    async with house(dialect, worker=False) as home, worker_process(home, directory, **VARIABLES) as worker:

        async def is_measured() -> bool:
            """The durable was looked at, whose name is a label, and the loop has turned twice."""
            found = await scrape(worker)
            is_looked_at = any(name == "noetl_worker_nats_consumer_pending" for name, _ in found)
            return is_looked_at and value(found, "noetl_worker_loop_delay_seconds_count") > 0

        await until(is_measured, "the first measures")
        await until(lambda: bool(worker.logged("registered")), "registered")
        at_start = await scrape(worker)
        issued = await home.plane.create_commands([RawCommand("noop") for _ in range(20)])
        await home.wait_terminal(*(one.event_id for one in issued))
        await home.wait_settled()
        after_noops = await scrape(worker)
        issued = await home.plane.create_commands(TROUBLE_COMMANDS)
        await home.publish(b"no notification of miller")
        await home.wait_terminal(*(one.event_id for one in issued))
        await home.wait_settled()
        return Scrapes(home.plane.url, at_start, after_noops, await scrape(worker))


@pytest.fixture(scope="module", params=Dialect, ids=lambda one: one.value)
async def scrapes(
    anyio_backend: Any, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Scrapes:
    return await worked(request.param, tmp_path_factory.mktemp("worker"))


def test_every_series_is_there_at_zero_and_none_appears_with_what_is_done(scrapes: Scrapes) -> None:
    assert sorted(set(scrapes.at_end) ^ set(scrapes.at_start)) == []
    assert not [name for name in scrapes.at_end if "miller" in str(name) or "customer" in str(name)]
    counted = {name for (name, _), number in scrapes.at_start.items() if number and name.endswith("_total")}
    assert counted == {"noetl_worker_control_plane_requests_total"}, "it registered, and asked which plane it is"
    grown = {name for (name, _), number in scrapes.at_end.items() if number and name.endswith("_total")}
    assert {"noetl_worker_tool_runs_total", "noetl_worker_dead_letters_total"} <= grown


def test_tool_time_is_by_kind_and_status_and_the_upstream_names_have_the_sum(scrapes: Scrapes) -> None:
    found, shell = scrapes.at_end, {"tool_kind": "shell"}
    runs = {one: value(found, "noetl_worker_tool_runs_total", status=one, **shell) for one in STATUSES}
    assert runs == {"success": 0, "error": 1, "timeout": 1, "cancelled": 0, "interrupted": 0}
    took = {one: value(found, "noetl_worker_tool_seconds_total", status=one, **shell) for one in STATUSES}
    assert took["timeout"] >= 0.2
    whole = value(found, "noetl_worker_dispatch_duration_seconds_sum", **shell)
    assert whole == pytest.approx(sum(took.values()))
    assert value(found, "noetl_worker_dispatch_duration_seconds_count", **shell) == 2
    assert value(found, "noetl_worker_dispatch_errors_total", **shell) == 2
    assert value(found, "noetl_worker_dispatch_errors_total", tool_kind="noop") == 0


def test_requests_a_command_and_slots_and_gates_are_those_of_the_settings(scrapes: Scrapes) -> None:
    name, before = "noetl_worker_control_plane_requests_total", scrapes.at_start
    sent = value(scrapes.after_noops, name) - value(before, name)
    assert 40 <= sent <= 100, "a claim and one or two requests of events each; heartbeats may be among them"
    assert [value(before, f"noetl_worker_slots{one}") for one in ("", "_limit", "_in_use")] == [4, 4, 0]
    for gate in ("commands", "results"):
        assert value(before, "noetl_worker_gate_limit", plane=scrapes.plane, gate=gate) == 12
        assert value(before, "noetl_worker_gate_down", plane=scrapes.plane, gate=gate) == 0
    assert value(before, "noetl_worker_outbox_oldest_seconds") == 0


# ── who reads it ──


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML


def test_dashboards_and_alerts_read_only_metrics_and_labels_that_a_scrape_has(scrapes: Scrapes) -> None:
    scraped: dict[str, dict[str, set[str]]] = {}
    for name, labels in scrapes.at_start:
        values = scraped.setdefault(name, {})
        for label, one in labels:
            values.setdefault(label, set()).add(one)
    for path in (DEPLOY / "alerts.yaml", *sorted((DEPLOY / "grafana").glob("*.json"))):
        queries = list(expressions(read(path)))
        assert len(queries) >= 6, path.name
        assert [(path.name, one) for query in queries for one in unknown_in(*query, scraped)] == []


def series_of(name: str, values: str, **labels: str) -> dict[str, str]:
    """Samples a minute apart, in promtool's notation."""
    written = ", ".join(f'{label}="{one}"' for label, one in {"job": "w", "instance": "i", **labels}.items())
    return {"series": f"{name}{{{written}}}", "values": values}


QUIET = [
    series_of("noetl_worker_nats_consumer_pending", "5x30", stream="s", consumer="c"),
    series_of("noetl_worker_slots_limit", "16x30"),
    series_of("noetl_worker_slots_in_use", "4x30"),
    series_of("noetl_worker_dead_letters_total", "7x30", reason="unknown_command"),
    series_of("noetl_worker_outbox_oldest_seconds", "0x30"),
    series_of("noetl_worker_ready", "1x30"),
    series_of("noetl_worker_loop_lag_seconds", "0.4x30"),
    series_of("noetl_worker_loop_delay_seconds_count", "0+120x30"),
    series_of("noetl_worker_loop_delay_seconds_bucket", "0+120x30", le="2.5"),
    series_of("noetl_worker_foreign_pool_total", "0x30"),
]
TROUBLE = {
    "NoetlWorkerLagGrows": [QUIET[1], QUIET[2], {**QUIET[0], "values": "5+3x30"}],
    "NoetlWorkerDeadLetters": [{**QUIET[3], "values": "0x20 1x10"}],
    "NoetlWorkerOutboxOld": [{**QUIET[4], "values": "0+60x30"}],
    "NoetlWorkerNotReady": [{**QUIET[5], "values": "1x5 0x25"}],
    "NoetlWorkerLoopLag": [QUIET[7], {**QUIET[8], "values": "0+120x26 3238+120x3"}],
    "NoetlWorkerForeignPool": [{**QUIET[9], "values": "0x20 4x10"}],
}
SILENT = {
    "all slots are taken": (
        "NoetlWorkerLagGrows",
        [TROUBLE["NoetlWorkerLagGrows"][2], QUIET[1], {**QUIET[2], "values": "16x30"}],
    ),
    "a start": ("NoetlWorkerNotReady", [{**QUIET[5], "values": "1x26 0x2 1x2"}]),
}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: package prometheus)")
def test_each_alert_holds_for_its_trouble_and_for_nothing_else(tmp_path: Path) -> None:
    rules = read(DEPLOY / "alerts.yaml")["groups"][0]["rules"]
    assert {rule["alert"] for rule in rules} == set(TROUBLE)

    def case(name: str, alert: str, samples: list[dict[str, str]], *, fires: bool) -> dict[str, Any]:
        asked = {"expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) > 0', "eval_time": "30m"}
        expected = [{"labels": "{}", "value": 1}] if fires else []
        return {
            "name": name,
            "interval": "1m",
            "input_series": samples,
            "promql_expr_test": [{**asked, "exp_samples": expected}],
        }

    cases = [case(alert, alert, samples, fires=True) for alert, samples in TROUBLE.items()]
    cases += [case(f"quiet: {alert}", alert, QUIET, fires=False) for alert in TROUBLE]
    cases += [case(name, alert, samples, fires=False) for name, (alert, samples) in SILENT.items()]
    file = tmp_path / "cases.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(DEPLOY / "alerts.yaml")], "evaluation_interval": "1m", "tests": cases})
    )
    for arguments in (["check", "rules", str(DEPLOY / "alerts.yaml")], ["test", "rules", str(file)]):
        ended = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
