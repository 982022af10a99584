"""The running of tests. Each file has its own control plane, NATS server and worker. Each test is one execution."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import yaml

from noetl_worker.authoring.dev.credential_files import credentials_beside
from noetl_worker.authoring.dev.event_log import LoggedEvent
from noetl_worker.authoring.dev.failures import About
from noetl_worker.authoring.dev.live_view import Timeline
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.authoring.dev.orchestration.execution import Execution
from noetl_worker.authoring.dev.plane import DevControlPlane
from noetl_worker.authoring.dev.playbook_tests.differences import Difference, differences
from noetl_worker.authoring.dev.playbook_tests.stand_in import with_stand_ins
from noetl_worker.authoring.dev.playbook_tests.tests_file import OUTCOMES, PlaybookTest, TestsFile
from noetl_worker.authoring.dev.session import WorkerFactory, neighbours
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.errors import PlaybookError, TemplateError
from noetl_worker.models.spellings import STEP_OF_TASKS
from noetl_worker.models.wire import Dialect, JsonValue
from noetl_worker.text.secrets.redaction import redact_text, redact_value
from noetl_worker.tools.process.live_output import PrintedLine, watched

log = logging.getLogger(__name__)
_MOST_PRINTED: Final = 20


@dataclass(frozen=True, slots=True)
class FinishedTest:
    """A test that has run, with its differences. A test without differences has passed."""

    file: TestsFile
    test: PlaybookTest
    seconds: float
    differences: tuple[Difference, ...]
    told: tuple[str, ...] = ()
    """Errors and printed lines of the steps, which help to find the cause of a difference."""

    @property
    def lines(self) -> list[str]:
        """Lines that say why the test failed; [] if it has passed."""
        found = [line for one in self.differences for line in one.lines(str(self.file.file))]
        return [*found, *self.told] if found else []


async def run_tests(
    file: TestsFile,
    tell: Callable[[FinishedTest], None],
    *,
    dialect: Dialect,
    worker_factory: WorkerFactory,
    limit_s: float,
) -> None:
    """Run the tests of a file, one after the other.

    Args:
        tell: called at the end of each test.
        limit_s: seconds that a test may take. A test that takes longer is cancelled and has failed.
    """
    settings = PlaneSettings(dialect=dialect, token=secrets.token_urlsafe())
    async with NatsServer(has_login=True) as nats, DevControlPlane(settings, nats_url=nats.url) as plane:
        for credential in credentials_beside(file.playbook):
            plane.credentials.write(credential.body())
        for _, content in neighbours(file.playbook):
            plane.register_playbook(content)
        seen = _Seen(plane)
        # The worker starts inside this block: `watched` sees only the output of asyncio tasks that start in the block.
        with watched(lambda line: seen.printed(line)):
            async with worker_factory(nats.url, plane.url, dialect, settings.token):
                for test in file.tests:
                    began, seen = time.monotonic(), _Seen(plane)
                    found = await _run(plane, test, seen, limit_s)
                    tell(FinishedTest(file, test, time.monotonic() - began, tuple(found), tuple(seen.told)))


async def _run(plane: DevControlPlane, test: PlaybookTest, seen: _Seen, limit_s: float) -> list[Difference]:
    document = with_stand_ins(test.document, test.stand_ins)
    given = {"server_url": plane.url, "nats_url": plane.nats_url}
    document = {**document, "workload": {**given, **document["workload"]}}
    entry = plane.register_playbook(yaml.safe_dump(document, sort_keys=False))
    stop = plane.log.listen(seen.take)
    try:
        execution_id = await plane.execute(entry.path)
        await plane.wait_all_ended(timeout_s=limit_s)
    except TimeoutError:
        plane.executions.cancel_route(execution_id, {})
        running = ", ".join(f"'{step}'" for step in plane.execution(execution_id).open_commands.values())
        text = f"no end within {limit_s:g} s (allow more with --timeout); running: {running or 'no step'}"
        return [Difference(test.line, "outcome", (text,))]
    except Exception as error:  # the other tests are run, and reported
        if not isinstance(error, (PlaybookError, TemplateError)):
            log.exception("test %r of %s broke noetl-worker; report this with the traceback", test.name, entry.path)
        return [Difference(test.line, "the playbook cannot be executed", (str(error) or type(error).__name__,))]
    finally:
        stop()
    return list(_compared(test, plane.execution(execution_id), seen))


def _compared(test: PlaybookTest, execution: Execution, seen: _Seen) -> Iterator[Difference]:
    expected = {"outcome": OUTCOMES[0], **_without_secrets(test.expected)}
    actual: dict[str, JsonValue] = {
        "outcome": execution.status.lower(),
        "steps": list(seen.results),
        "results": {step: seen.step_result(step) for step in seen.results},
        "result": execution.last_result,
    }
    for name, value in actual.items():
        if name in expected:
            yield from differences(expected[name], value, name=name, text=test.text, path=(*test.path, name))
    if "error" in expected:
        errors = [*seen.errors, *filter(None, [execution.error])]
        if not any(str(expected["error"]) in text for text in errors):
            there = [f"+ {text}" for text in dict.fromkeys(errors)] or ["there was no error"]
            yield Difference(
                test.text.key_place((*test.path, "error")).line, "error", (f"- {expected['error']}", *there)
            )


def _without_secrets(expected: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Return the expectation with secrets redacted as in the worker's results, so that secrets compare as equal.

    A step's own name, for example `token`, does not make its whole result a secret. Only secrets inside the result
    are redacted.
    """
    values: dict[str, JsonValue] = {}
    if "result" in expected:
        values["result"] = redact_value(expected["result"])
    if "results" in expected:
        values["results"] = {step: redact_value(value) for step, value in expected["results"].items()}
    if "error" in expected:
        values["error"] = redact_text(str(expected["error"]))
    return {**expected, **values}


@dataclass(slots=True)
class _Seen:
    """Collects the results, errors and output of the steps of one test. Executions that started before this object was
    made are ignored.
    """

    plane: DevControlPlane
    results: dict[str, dict[int, JsonValue]] = field(default_factory=dict)
    """Results by the step's name and, for a loop, the item's index; the index is 0 for a step without a loop."""
    errors: list[str] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)
    _loops: set[str] = field(default_factory=set)
    _timeline: Timeline = field(default_factory=Timeline)
    _before: set[int] = field(init=False)

    def __post_init__(self) -> None:
        """Note the executions of earlier tests, so that later events of a cancelled test are ignored."""
        self._before = {execution.execution_id for execution in self.plane.executions.all()}

    def take(self, event: LoggedEvent) -> None:
        ref = event.command_ref
        if ref is None or event.execution_id in self._before:
            return
        execution = self.plane.execution(event.execution_id)
        is_ours = execution.parent_execution_id is None
        happening = self._timeline.take(event, About(item=execution.positions.get(ref)))
        step, item = event.node.removesuffix(STEP_OF_TASKS), self._timeline.items.get(ref)
        if is_ours and event.event_type == "command.issued":
            self.results.setdefault(step, {})
            self._loops |= {step} if item is not None else set()
        elif happening is not None and happening.word != "started":
            if is_ours:
                self.results.setdefault(step, {})[item.index if item is not None else 0] = happening.value
            if happening.failure is not None:
                self.errors.append(happening.failure.error)
                self._lines.append(f"{step} failed: {happening.failure.error}")

    def printed(self, line: PrintedLine) -> None:
        if line.execution_id not in self._before:
            self._lines.append(f"{line.step.removesuffix(STEP_OF_TASKS)} | {line.text}")

    def step_result(self, step: str) -> JsonValue:
        found = self.results[step]
        return [found[place] for place in sorted(found)] if step in self._loops else found.get(0)

    @property
    def told(self) -> list[str]:
        return [line for text in self._lines for line in text.splitlines()][-_MOST_PRINTED:]
