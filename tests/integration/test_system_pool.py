"""Commands of the pool `system`, as a Rust plane publishes its own beside those of a playbook."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from integration.desk import connected
from integration.findings import by_check, settings
from integration.house import CLAIM, House, house, noops
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.cli.diagnosis import Diagnosis
from noetl_worker.cli.doctor import State, nats
from noetl_worker.models import Dialect
from noetl_worker.remote.jetstream.consumer import ensure_durable
from noetl_worker.settings.settings import load_settings

CHECK, OTHERS = "stream: pool system", "stream: other durables"


DRIVE = RawCommand("wasm", step="__orchestrate__")


async def publish_to_system(home: House, *commands: RawCommand, subject: str = "system") -> int:
    """Commands that any worker could claim; the last one's claim key."""
    issued = await home.plane.create_commands(commands, publish=False)
    for one in issued:
        body = home.notification(one, execution_pool="system")
        await home.publish(json.dumps(body).encode(), f"noetl.commands.{subject}.{one.execution_id}")
    return issued[-1].event_id


@pytest.mark.parametrize("subject", ["system", "system.shard.3"])
@pytest.mark.parametrize("filters", ["", "noetl.commands.>"])
async def test_command_of_the_pool_system_is_acknowledged_without_a_claim_and_is_no_dead_letter(
    filters: str, subject: str
) -> None:
    async with house(Dialect.RUST, NATS_FILTER_SUBJECT=filters) as home:
        of_the_plane = await publish_to_system(home, DRIVE, subject=subject)
        await home.wait_settled()
        assert home.plane.requests[CLAIM] == 0
        assert home.terminal_events(of_the_plane) == []
        assert await home.dead_letters() == []
        assert home.workers[0].deliveries.settled == {"ack:system_pool": 1}


async def test_commands_of_the_pool_system_take_no_place_of_max_ack_pending() -> None:
    """Returned, they would stay unacknowledged, and once there are as many no command comes to this durable."""
    limits = {"WORKER_MAX_CONCURRENT": "2", "NOETL_WORKER_MAX_ACK_PENDING": "2"}
    async with house(Dialect.RUST, **limits) as home:
        for _ in range(3):
            await publish_to_system(home, DRIVE, DRIVE)
            await home.ran(*noops(2))
        assert home.workers[0].deliveries.settled == {"ack:system_pool": 6, "ack:reported": 6}


async def test_worker_that_names_the_pool_system_runs_its_commands() -> None:
    async with house(Dialect.RUST, NOETL_WORKER_POOL_SEGMENTS="legacy,shared,system") as home:
        event_id = await publish_to_system(home, *noops(1))
        await home.wait_terminal(event_id)
        assert home.terminal_events(event_id) == ["command.completed"]


async def test_doctor_says_whether_anybody_is_there_for_the_pool_system(tmp_path: Path) -> None:
    async with house(Dialect.RUST) as home:
        ours = settings(tmp_path, **home.addresses)
        assert by_check(await nats.examine(ours))[CHECK].state is State.FINE
        await publish_to_system(home, DRIVE)
        found = by_check(await nats.examine(ours))[CHECK]
        assert found.state is State.WARNING
        assert "__orchestrate__" in found.found
        assert "NOETL_ORCHESTRATE_PLUGIN_DRIVE=false" in found.fix
        named = settings(tmp_path, NOETL_WORKER_POOL_SEGMENTS="shared,system", **home.addresses)
        found = by_check(await nats.examine(named))[CHECK]
        assert (found.state, "out of the settings" in found.fix) == (State.WARNING, True)
        await publish_to_system(home, RawCommand("noop", step="cleanup"))
        found = by_check(await nats.examine(ours))[CHECK]
        assert (found.state, "NOETL_WORKER_POOL_SEGMENTS=system" in found.fix) == (State.WARNING, True)
        assert by_check(await nats.examine(named))[CHECK].state is State.FINE


async def test_durable_of_the_pool_system_serves_it_and_races_with_nobody(tmp_path: Path) -> None:
    async with house(Dialect.RUST) as home:
        await publish_to_system(home, DRIVE)
        ours = settings(tmp_path, **home.addresses)
        apart = load_settings({"NATS_CONSUMER": "drives", "NATS_FILTER_SUBJECT": "noetl.commands.system.>"})
        async with connected(ours) as connection:
            await ensure_durable(connection.client, apart)
        found = by_check(await nats.examine(ours))
        assert (found[CHECK].state, "durable drives" in found[CHECK].found) == (State.FINE, True)
        assert found[OTHERS].state is State.FINE


async def test_why_says_that_the_command_was_passed_over(tmp_path: Path) -> None:
    async with house(Dialect.RUST) as home:
        row = home.plane.command(await publish_to_system(home, DRIVE))
        await home.wait_settled()
        ours = settings(tmp_path, **home.addresses, WORKER_METRICS_BIND="")
        story = await Diagnosis(ours, str(row.command_ref), execution_id=row.execution_id, most=10).ask()
        said = [fact.text for fact in story.facts if fact.source == "NATS"]
        assert any("passed over" in text and "do not name system" in text for text in said)
