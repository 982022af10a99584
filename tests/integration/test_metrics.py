"""What a scrape has: every series from the start, none that grows with what commands are called; and who reads it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from integration.house import house, noops
from integration.processes import PROBES, SEVEN_METRICS, WorkerProcess, program, until, worker_process
from integration.scraped_names import expressions, unknown_in
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.bridge import metrics as bridge_metrics
from noetl_worker.models import Dialect
from noetl_worker.observability.tool_times import STATUSES
from patience import PATIENCE_S

Series: TypeAlias = dict[tuple[str, tuple[tuple[str, str], ...]], float]
ROOT = Path(__file__, "../../..").resolve()
ALERTS = ROOT / "deploy/helm/noetl-worker/files/alerts.yaml"
DASHBOARD = ROOT / "deploy/helm/noetl-worker/files/dashboard.json"
RUNBOOK = ROOT / "docs/runbook.md"
VARIABLES = {**PROBES, "WORKER_NATS_LAG_POLL_INTERVAL": "1", "WORKER_MAX_CONCURRENT": "4"}


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
    return series(await (await worker.probe()).metrics())


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
        probe = await worker.probe()
        for path in ("/healthz", "/livez", "/readyz", "/metrics"):
            assert (await probe.get(path)).status_code == 200, path
        assert (await probe.get("/nowhere")).status_code == 404
        at_start = await scrape(worker)
        await home.ran(*noops(20))
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


def test_seven_upstream_metrics_are_there_from_the_start_and_count_commands(scrapes: Scrapes) -> None:
    for metric in SEVEN_METRICS:
        at_start = [number for (name, _), number in scrapes.at_start.items() if name.startswith(metric)]
        assert set(at_start) == {0.0}, metric
    assert value(scrapes.at_start, "noetl_worker_ready") == 1
    assert value(scrapes.after_noops, "noetl_worker_pulls_total", outcome="claimed") == 20
    assert value(scrapes.after_noops, "noetl_worker_pull_duration_seconds_count") == 20
    assert "execution_id" not in str(scrapes.at_end)


def test_every_series_is_there_at_zero_and_none_appears_with_what_is_done(scrapes: Scrapes) -> None:
    assert sorted(set(scrapes.at_end) ^ set(scrapes.at_start)) == []
    assert not [name for name in scrapes.at_end if "miller" in str(name) or "customer" in str(name)]
    counted = {name for (name, _), number in scrapes.at_start.items() if number and name.endswith("_total")}
    assert counted - {"process_cpu_seconds_total"} == {"noetl_worker_control_plane_requests_total"}, (
        "it registered, and asked which plane it is"
    )
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


def test_wait_of_a_command_is_by_pool_and_kind(scrapes: Scrapes) -> None:
    name, labels = "noetl_worker_schedule_to_start_seconds", {"pool": "default", "tool_kind": "noop"}
    assert value(scrapes.at_start, f"{name}_count", **labels) == 0
    assert value(scrapes.after_noops, f"{name}_count", **labels) == 20
    assert 0 < value(scrapes.after_noops, f"{name}_sum", **labels) < 20 * PATIENCE_S


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
    for name, labels in [*scrapes.at_start, *series(bridge_metrics.exposition().decode())]:
        values = scraped.setdefault(name, {})
        for label, one in labels:
            values.setdefault(label, set()).add(one)
    for path in (ALERTS, DASHBOARD):
        queries = list(expressions(read(path)))
        assert len(queries) >= 6, path.name
        assert [(path.name, one) for query in queries for one in unknown_in(*query, scraped)] == []


def series_of(name: str, values: str, **labels: str) -> dict[str, str]:
    """Samples a minute apart, in promtool's notation."""
    written = ", ".join(f'{label}="{one}"' for label, one in {"job": "w", "instance": "i", **labels}.items())
    return {"series": f"{name}{{{written}}}", "values": values}


PENDING = {"stream": "NOETL_COMMANDS", "consumer": "c"}
STORED = {"stream_name": "NOETL_COMMANDS", "consumer_name": "c"}
HTTP = {"tool_kind": "http"}
CLAIM = {"route": "claim"}
QUIET = {
    name: series_of(f"noetl_worker_{name}", values, **labels)
    for name, values, labels in (
        ("nats_consumer_pending", "0x30", PENDING),
        ("nats_consumer_pause_seconds", "0x30", PENDING),
        ("durable_usable", "1x30", PENDING),
        ("nats_permission_violations_total", "3x30", {"what": "acknowledge"}),
        ("nats_consumer_ack_pending_full", "0x30", PENDING),
        ("slots_limit", "16x30", {}),
        ("slots_in_use", "4x30", {}),
        ("dead_letters_total", "7x30", {"reason": "unknown_command"}),
        ("outbox_oldest_seconds", "0x30", {}),
        ("outbox_unwritten", "0x30", {}),
        ("outbox_write_errors_total", "2x30", {}),
        ("commands_lost_total", "2x30", {}),
        ("resource_shortages_total", "2x30", {}),
        ("dead_letters_kept", "0x30", {}),
        ("ready", "1x30", {}),
        ("nats_connected", "1x30", {}),
        ("auth_refused", "0x30", {}),
        ("gate_down", "0x30", {"plane": "p", "gate": "commands"}),
        ("plane_down", "0x30", {}),
        ("loop_lag_seconds", "0.4x30", {}),
        ("loop_delay_seconds_count", "0+120x30", {}),
        ("foreign_pool_total", "0x30", {}),
        ("executions_standing_still_total", "0x30", {}),
        ("batches_not_watched_total", "0x30", {}),
        ("batches_not_rescued_total", "0x30", {}),
        ("credential_ends_timestamp_seconds", "0x30", {"credential": "NATS_CA"}),
    )
}
QUIET |= {
    "bridge_ready": series_of("noetl_bridge_ready", "1x30"),
    "other_bridge_ready": series_of("noetl_bridge_ready", "1x30", instance="j"),
    "bridge_oldest_seconds": series_of("noetl_bridge_oldest_seconds", "0x30"),
    "bridge_feed_lag": series_of("noetl_bridge_feed_lag", "5x30", shard="0"),
    "bridge_refused_total": series_of("noetl_bridge_refused_total", "0x30"),
}
QUIET |= {
    "bucket": series_of("noetl_worker_loop_delay_seconds_bucket", "0+120x30", le="2.5"),
    "answers": series_of("noetl_worker_control_plane_request_duration_seconds_bucket", "0+9x30", le="0.1", **CLAIM),
    "all answers": series_of(
        "noetl_worker_control_plane_request_duration_seconds_bucket", "0+9x30", le="+Inf", **CLAIM
    ),
    "slow answers": series_of(
        "noetl_worker_control_plane_request_duration_seconds_bucket", "0+9x30", le="5.0", **CLAIM
    ),
    "up": series_of("up", "1x30"),
    "ack_pending": series_of("noetl_worker_nats_consumer_ack_pending", "2x30", **PENDING),
    "stored": series_of("jetstream_consumer_num_pending", "5x30", **STORED),
    "asked": series_of("jetstream_consumer_num_waiting", "0x30", **STORED),
    "succeeded": series_of("noetl_worker_tool_runs_total", "0+9x30", status="success", **HTTP),
    "failed": series_of("noetl_worker_tool_runs_total", "0+1x30", status="error", **HTTP),
    "started": series_of("process_start_time_seconds", "100x30"),
}


def but(**changed: str) -> list[dict[str, str]]:
    """As in quiet times, but for these values."""
    return [{**one, "values": changed[name]} if name in changed else one for name, one in QUIET.items()]


def gone(pending: str, ack_pending: str) -> dict[str, str]:
    """The last worker is gone after 20 minutes, and its target; Prometheus marks its series as stale."""
    own = {name: f"{one['values'].partition('x')[0]}x20 stale" for name, one in QUIET.items()}
    own = {name: text for name, text in own.items() if name not in ("stored", "asked")}
    return {**own, "nats_consumer_pending": f"{pending}x20 stale", "ack_pending": f"{ack_pending}x20 stale"}


FULL = {"slots_in_use": "16x30"}
TROUBLE = {
    "NoetlWorkerTargetDown": but(**{**gone("0", "0"), "up": "1x20 0x10"}),
    "NoetlWorkerGone": but(**gone("0", "2")),
    "NoetlWorkerNobodyPulls": but(**gone("0", "0")),
    "NoetlWorkerPlaneDown": but(gate_down="0x20 1x10"),
    "NoetlWorkerPlaneSlow": but(answers="0+9x26 234x4"),
    "NoetlWorkerNatsDown": but(nats_connected="1x20 0x10"),
    "NoetlWorkerAuthRefused": but(auth_refused="0x20 1x10"),
    "NoetlWorkerDurableUnusable": but(**{**gone("0", "0"), "durable_usable": "1x15 0x4 stale"}),
    "NoetlWorkerNatsRefuses": but(nats_permission_violations_total="0x27 40x3"),
    "NoetlWorkerNotReady": but(ready="1x5 0x25"),
    "NoetlWorkerRestarts": but(started="100x5 200x5 300x5 400x5 500x10"),
    "NoetlWorkerLagGrows": but(nats_consumer_pending="5+3x30"),
    "NoetlWorkerCommandsWait": but(nats_consumer_pending="500x30"),
    "NoetlWorkerAckPendingFull": but(nats_consumer_ack_pending_full="0x20 1x10"),
    "NoetlWorkerSlotsFull": but(**FULL, nats_consumer_pending="5x30"),
    "NoetlWorkerKindFails": but(succeeded="0+9x15 135+5x15", failed="0+1x15 15+5x15"),
    "NoetlWorkerDeadLetters": but(dead_letters_total="0x20 1x10"),
    "NoetlWorkerStreamLost": but(commands_lost_total="2x27 200x3"),
    "NoetlWorkerDeadLettersKept": but(dead_letters_kept="0x10 3x20"),
    "NoetlWorkerOutboxUnwritten": but(outbox_unwritten="0x27 2x3"),
    "NoetlWorkerResourceShortage": but(resource_shortages_total="2x27 8x3"),
    "NoetlWorkerOutboxOld": but(outbox_oldest_seconds="0+60x30"),
    "NoetlWorkerExecutionStandsStill": but(executions_standing_still_total="0x20 1x10"),
    "NoetlWorkerBatchNotRescued": but(batches_not_rescued_total="0x20 1x10"),
    "NoetlWorkerBatchNotWatched": but(batches_not_watched_total="0x20 1x10"),
    "NoetlWorkerLoopLag": but(bucket="0+120x26 3238+120x3"),
    "NoetlWorkerForeignPool": but(foreign_pool_total="0x20 4x10"),
    "NoetlWorkerCredentialEnds": but(credential_ends_timestamp_seconds="1000000x30"),
    "NoetlBridgeAway": but(bridge_ready="1x20 0x10", other_bridge_ready="1x20"),
    "NoetlBridgeAlone": but(other_bridge_ready="1x10 0x20"),
    "NoetlBridgeRecordsWait": but(bridge_oldest_seconds="0x29 6"),
    "NoetlBridgeRefuses": but(bridge_refused_total="0x20 1x10"),
    "NoetlFeedGrows": but(bridge_feed_lag="5+3x30"),
}
ALSO = {
    "an idle worker, whose plane only heartbeats have met": ("NoetlWorkerPlaneDown", but(plane_down="0x20 1x10")),
    "a kind that fails from its first run": ("NoetlWorkerKindFails", but(succeeded="0x30", failed="0x15 0+2x15")),
    "a disk that refuses a row": ("NoetlWorkerOutboxUnwritten", but(outbox_write_errors_total="2x27 3x3")),
}
SILENT = {
    "KEDA holds the pool at 0": ("NoetlWorkerGone", but(**gone("0", "0"), stored="0x30")),
    "nothing waits at 0": ("NoetlWorkerNobodyPulls", but(**gone("0", "0"), stored="0x30")),
    "another program pulls": ("NoetlWorkerNobodyPulls", but(**gone("0", "0"), asked="1x30")),
    "all slots are taken": ("NoetlWorkerLagGrows", but(nats_consumer_pending="5+3x30", **FULL)),
    "paused": ("NoetlWorkerLagGrows", but(nats_consumer_pending="5+3x30", nats_consumer_pause_seconds="1800-60x30")),
    "few wait for a moment": ("NoetlWorkerCommandsWait", but(nats_consumer_pending="500x14 0 500x15")),
    "every slot is taken": ("NoetlWorkerCommandsWait", but(nats_consumer_pending="500x30", **FULL)),
    "nothing waits": ("NoetlWorkerSlotsFull", but(nats_consumer_pending="0x30", **FULL)),
    "a start": ("NoetlWorkerNotReady", but(ready="1x26 0x2 1x2")),
    "a roll-out": ("NoetlWorkerRestarts", but(started="100x15 200x15")),
    "few runs": ("NoetlWorkerKindFails", but(succeeded="0+9x15 135x15", failed="0+1x15 15+0.3x15")),
    "as always": ("NoetlWorkerKindFails", but(succeeded="0+5x30", failed="0+5x30")),
    "a bridge restarts": ("NoetlBridgeAway", but(other_bridge_ready="1x20 0x10")),
    "a year left": ("NoetlWorkerCredentialEnds", but(credential_ends_timestamp_seconds="31536000x30")),
}


def test_each_alert_has_a_section_of_the_runbook_and_each_section_an_alert() -> None:
    rules = read(ALERTS)["groups"][0]["rules"]
    headings = [line[3:] for line in RUNBOOK.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    assert headings == [rule["alert"] for rule in rules]
    for rule in rules:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (page.rpartition("/")[2], anchor) == (RUNBOOK.name, rule["alert"].lower())


@pytest.mark.sweep
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: package prometheus)")
def test_each_alert_holds_for_its_trouble_and_for_nothing_else(tmp_path: Path) -> None:
    rules = read(ALERTS)["groups"][0]["rules"]
    assert {rule["alert"] for rule in rules} == set(TROUBLE)

    def case(name: str, alert: str, samples: list[dict[str, str]], *, fires: bool) -> dict[str, Any]:
        asked = {"expr": f'count(ALERTS{{alertname=~"{alert}", alertstate="firing"}}) > 0', "eval_time": "30m"}
        expected = [{"labels": "{}", "value": 1}] if fires else []
        return {
            "name": name,
            "interval": "1m",
            "input_series": samples,
            "promql_expr_test": [{**asked, "exp_samples": expected}],
        }

    cases = [case(alert, alert, samples, fires=True) for alert, samples in TROUBLE.items()]
    cases += [case(name, alert, samples, fires=True) for name, (alert, samples) in ALSO.items()]
    cases.append(case("quiet", ".+", but(), fires=False))
    cases += [case(name, alert, samples, fires=False) for name, (alert, samples) in SILENT.items()]
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": cases}))
    for arguments in (["check", "rules", str(ALERTS)], ["test", "rules", str(file)]):
        ended = program(["promtool", *arguments], os.environ)
        assert ended.code == 0, ended.out + ended.err
