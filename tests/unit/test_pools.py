"""Which pools' commands run here, by the notifications as the planes were recorded to publish them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from noetl_worker.envelope import decode_notification
from noetl_worker.models.disposition import Answer, DispositionKind
from noetl_worker.observability import metrics
from noetl_worker.pipeline.delivery import acknowledge
from noetl_worker.pipeline.delivery.pools import Pools
from noetl_worker.settings.settings import load_settings
from unit.planes import refusal

SAMPLES = Path(__file__, "../../compat/samples").resolve()
POOL_SUBJECT = "noetl.commands.shared.767499259015856274"
"""As the Python plane publishes with NOETL_COMMAND_ROUTING_ENABLED (protocol/pools.md#subjects)."""


def recorded(plane: str) -> tuple[str, str | None]:
    """(subject, execution_pool) of the first notification that was recorded from a plane."""
    for line in (SAMPLES / f"{plane}-control-plane-cases.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "nats_subject" in record:
            return record["nats_subject"], decode_notification(json.dumps(record["body"]).encode()).pool
    raise AssertionError("no notification in the recording")


def pools(**variables: str) -> Pools:
    return Pools(load_settings(variables))


def cause(of: Pools, named: str | None, subject: str) -> str | None:
    refusal = of.refusal(named, subject)
    assert refusal is None or not refusal.is_passed_over
    assert refusal is None or (named or subject) not in of.needs_no_check
    return refusal and refusal.cause


@pytest.mark.parametrize(
    ("filters", "segments", "own", "made"),
    [
        ("", "", None, ("noetl.commands", "noetl.commands.>")),
        ("", "legacy,shared,python", {"shared", "python"}, None),
        ("", "legacy", set(), ("noetl.commands",)),
        ("", " gpu , gpu", {"gpu"}, ("noetl.commands.gpu.>",)),
        ("noetl.commands.gpu.>", "", {"gpu"}, ("noetl.commands.gpu.>",)),
        ("noetl.commands.gpu.>", "shared", {"gpu"}, ("noetl.commands.gpu.>",)),
        ("noetl.commands,noetl.commands.gpu.*", "", {"gpu"}, None),
        ("noetl.commands.system.shard.3.>", "", {"system"}, None),
        ("noetl.commands.>", "shared", {"shared"}, ("noetl.commands.>",)),
        ("noetl.commands.gpu.>,noetl.commands.*.7", "", None, None),
        ("noetl.commands", "", None, None),
        ("other.subject.gpu.>", "", None, None),
    ],
)
def test_pools_are_those_of_the_filters_else_the_list_else_any_but_system(
    filters: str, segments: str, own: set[str] | None, made: tuple[str, ...] | None
) -> None:
    settings = load_settings({"NATS_FILTER_SUBJECT": filters, "NOETL_WORKER_POOL_SEGMENTS": segments})
    assert settings.pools == own
    if made is not None:
        assert settings.filters == made


def test_the_python_worker_s_list_is_the_bare_subject_and_one_filter_a_pool() -> None:
    settings = load_settings({"NOETL_WORKER_POOL_SEGMENTS": "legacy,shared,python", "NATS_SUBJECT": "a.b"})
    assert settings.filters == ("a.b", "a.b.shared.>", "a.b.python.>")


@pytest.mark.parametrize("value", ["sha.red", "shared,*", ">", "two words"])
def test_pool_that_is_no_token_of_a_subject_stops_the_start(value: str) -> None:
    assert re.search(r"NOETL_WORKER_POOL_SEGMENTS.*names of pools", refusal({"NOETL_WORKER_POOL_SEGMENTS": value}))


def test_recorded_notifications_of_both_planes_are_told_apart_by_pool() -> None:
    rust_subject, rust_pool = recorded("rust")
    python_subject, python_pool = recorded("python")
    assert (rust_pool, python_subject, python_pool) == ("shared", "noetl.commands", None)
    shared, gpu = pools(NOETL_WORKER_POOL_SEGMENTS="shared"), pools(NATS_FILTER_SUBJECT="noetl.commands.gpu.>")
    for subject, named in ((rust_subject, rust_pool), (rust_subject, None), (POOL_SUBJECT, python_pool)):
        assert cause(shared, named, subject) is None
        assert cause(gpu, named, subject) == "the command is for pool 'shared', and this worker serves: gpu"
    assert cause(gpu, python_pool, python_subject) is None, "it names no pool"
    assert cause(gpu, "gpu", POOL_SUBJECT) is None, "what it says itself goes before its subject"
    assert cause(gpu, "shared", "noetl.commands.gpu.7") is not None


ANY, LISTED, OF_SYSTEM = "noetl.commands.>", "shared,python", "noetl.commands.system.>"
SYSTEM_SUBJECTS = ("noetl.commands.system.7", "noetl.commands.system.shard.3.7")


@pytest.mark.parametrize(("named", "subject"), [("system", SYSTEM_SUBJECTS[0]), (None, SYSTEM_SUBJECTS[1])])
@pytest.mark.parametrize(
    ("filters", "segments", "answer"),
    [
        ("", "", Answer.ACK),
        (ANY, "", Answer.ACK),
        ("noetl.commands,noetl.commands.*.>", "", Answer.ACK),
        (ANY, LISTED, Answer.ACK),
        ("", LISTED, Answer.NAK),  # the durable's filters are no longer the settings'
        ("noetl.commands", "", Answer.NAK),
        ("", f"{LISTED},system", None),
        (ANY, "legacy,system", None),
        (OF_SYSTEM, "", None),
        (f"{OF_SYSTEM},noetl.commands.shared.>", "", None),
        ("noetl.commands.system.shard.3.>", "", None),
    ],
)
def test_command_of_the_pool_system_is_run_where_it_is_named_and_else_passed_over(
    filters: str, segments: str, answer: Answer | None, named: str | None, subject: str
) -> None:
    """On these subjects the Rust plane publishes its own `__orchestrate__` (3.54.0, both run)."""
    variables = {"NATS_FILTER_SUBJECT": filters, "NOETL_WORKER_POOL_SEGMENTS": segments}
    ours = pools(**variables)
    refusal = ours.refusal(named, subject)
    assert refusal is None or (named or subject) not in ours.needs_no_check
    assert (refusal is None) == (answer is None)
    assert refusal is None or refusal.is_passed_over == (answer is Answer.ACK)
    assert load_settings(variables).has_system_pool == (answer is None)


def test_pool_of_any_other_name_runs_where_none_is_named() -> None:
    ours = pools(NATS_FILTER_SUBJECT=ANY)
    assert ours.refusal(None, "noetl.commands") is None
    assert ours.refusal("gpu", "noetl.commands.gpu.7") is None
    assert ours.refusal(None, "noetl.commands.systems.7") is None


def test_base_subject_of_somebody_s_own_has_its_pool_behind_it() -> None:
    ours = pools(NATS_SUBJECT="system.commands")
    assert ours.refusal(None, "system.commands.shared.7") is None
    refusal = ours.refusal(None, "system.commands.system.7")
    assert refusal is not None
    assert refusal.is_passed_over


def test_passed_over_commands_are_said_once_with_what_the_plane_needs() -> None:
    before, ours = metrics.FOREIGN_POOL.own.value, pools()
    with capture_logs() as lines:
        for subject in SYSTEM_SUBJECTS:
            ours.refusal("system", subject)
    assert metrics.FOREIGN_POOL.own.value == before, "the alert is for a durable whose filters are wrong"
    [line] = lines
    assert (line["event"], line["log_level"]) == ("system_pool_passed_over", "warning")
    assert "NOETL_ORCHESTRATE_PLUGIN_DRIVE=false" in line["advice"]
    assert "NOETL_WORKER_POOL_SEGMENTS" in line["advice"]
    disposition = acknowledge.system_pool("why")
    assert (disposition.kind, disposition.answer) == (DispositionKind.SYSTEM_POOL, Answer.ACK)


def test_foreign_pool_is_counted_each_time_and_said_once_with_what_to_do() -> None:
    before, gpu = metrics.FOREIGN_POOL.own.value, pools(NOETL_WORKER_POOL_SEGMENTS="gpu")
    with capture_logs() as lines:
        for _ in range(3):
            gpu.refusal("shared", POOL_SUBJECT)
        gpu.refusal("system", POOL_SUBJECT)
    assert metrics.FOREIGN_POOL.own.value == before + 4
    assert [line["pool"] for line in lines] == ["shared", "system"]
    assert all("noetl-worker nats ensure --apply" in line["advice"] for line in lines)
    assert all("NOETL_WORKER_POOL_SEGMENTS" in line["advice"] for line in lines)


def test_foreign_pool_is_returned_ever_later_and_kept_before_the_stream_forgets_it() -> None:
    limit_s = acknowledge.OLD_AFTER_S
    young = [acknowledge.foreign_pool("why", n, limit_s - 1) for n in (1, 4, 900)]
    assert {one.kind for one in young} == {DispositionKind.FOREIGN_POOL}
    assert {one.answer for one in young} == {Answer.NAK}
    assert 0 < young[0].delay_s <= 1.0
    assert acknowledge.MAX_DELAY_S / 10 <= young[2].delay_s <= acknowledge.MAX_DELAY_S
    first = acknowledge.foreign_pool("why", 1, limit_s + 1)
    assert first.answer is Answer.NAK, "its own workers were away: they are given a chance"
    old = acknowledge.foreign_pool("it is for pool 'a'", acknowledge.MIN_OLD_DELIVERIES, limit_s + 1)
    assert (old.kind, old.answer) == (DispositionKind.POOL_NOT_SERVED, Answer.TERM)
    assert old.reason == "another pool's command: it is for pool 'a'"
