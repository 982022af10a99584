"""A call of a tool, with everything that a test may want to check about it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from noetl_worker.errors import ToolError
from noetl_worker.models.fit import SecretTexts
from noetl_worker.models.tool_result import ToolFailure, ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.text import json_text
from noetl_worker.text.secrets.known import KnownSecrets
from noetl_worker.text.secrets.redaction import redact_value
from noetl_worker.tools.contract import Tool
from noetl_worker.tools.memory_context import MemoryControlPlane, RecordedLogger, tool_context
from noetl_worker.tools.registry import Registry

__all__ = ["ToolCall", "acall_tool", "call_tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool and its effects. A test reads a failure from the same fields, whether the tool returned it or
    raised it."""

    result: ToolResult | None
    """The result of the tool's `run`. None if `run` raised, or if the config was refused before `run`."""
    raised: BaseException | None
    warnings: tuple[str, ...]
    """Warnings about unknown fields in the config. The tool registry gives these warnings."""
    log: tuple[tuple[str, str, Mapping[str, Any]], ...]
    """(level, event, fields) of each line that the tool logged."""
    progress: tuple[Mapping[str, JsonValue], ...]
    control_plane: MemoryControlPlane
    secrets: SecretTexts
    """Secret texts in every form in which they may be written. These are secrets of the test's credentials, and texts
    that the tool gave to `context.secrets.keep`."""

    @property
    def succeeded(self) -> bool:
        return self.result is not None and self.result.error is None

    @property
    def data(self) -> JsonValue:
        return self.result.data if self.result is not None else None

    @property
    def _failure(self) -> ToolFailure | None:
        if self.result is not None:
            return self.result.error
        if isinstance(self.raised, ToolError):
            return ToolFailure(str(self.raised), self.raised.kind, self.raised.retryable, self.raised.code)
        return ToolFailure(str(self.raised), code=type(self.raised).__name__)

    @property
    def kind(self) -> str | None:
        """The failure's kind, a word of noetl_worker.tools.error_kinds (`output.error.kind`); None on success."""
        return self._failure.kind if self._failure is not None else None

    @property
    def message(self) -> str | None:
        """The failure's text; None on success."""
        return self._failure.message if self._failure is not None else None

    @property
    def retryable(self) -> bool:
        """True if the same call may succeed later (`output.error.retryable`); False on success."""
        return self._failure is not None and self._failure.retryable

    @property
    def code(self) -> str | None:
        """The failure's code, such as an HTTP status or SQLSTATE (`output.error.code`); None on success."""
        return self._failure.code if self._failure is not None else None

    @property
    def sent(self) -> Mapping[str, JsonValue]:
        """The result as the worker sends it in its events: encoded, and without secrets."""
        result = self.result or ToolResult.failure(self.message or "", kind=self.kind or "unknown")
        sent: Mapping[str, JsonValue] = redact_value(json_text.loads(json_text.dumps(result.to_json())), self.secrets)
        return sent

    def assert_no_secrets(self) -> None:
        """Fail if a secret is in something that the tool put out.

        Checked are the tool's data, error, log, progress, stored results, variables and child executions. The worker
        redacts secrets that it knows, but only in the forms that it knows. A secret that a tool has cut, joined or
        hashed is not found. Only a tool that shows no secret at all is safe.

        Raises:
            AssertionError: a secret was found; the text names the place and the secret's first two characters.
        """
        plane = self.control_plane
        places: dict[str, Any] = {
            "result": None if self.result is None else dataclasses.asdict(self.result),
            "error": None if self.raised is None else _chain(self.raised),
            "log": self.log,
            "progress": self.progress,
            "stored results": [data.decode(errors="replace") for data in plane.results.values()],
            "variables": plane.variables,
            "child executions": plane.executions,
        }
        for place, value in places.items():
            text = json.dumps(value, default=str, ensure_ascii=False)
            found = next((secret for secret in self.secrets.all if secret in text), None)
            if found is not None:
                raise AssertionError(
                    f"the {place} shows the secret {found[:2]}... ({len(found)} characters): {value!r}"
                )


def _chain(error: BaseException) -> list[str]:
    """Return the texts of an exception and its causes. The worker reports all of them."""
    texts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(texts) < 20:
        texts.append(f"{type(current).__name__}: {current}")
        current = current.__cause__ or current.__context__
    return texts


async def acall_tool(tool: str | Tool[Any], config: Mapping[str, JsonValue], **context: Any) -> ToolCall:
    """Call a tool once in the running event loop. An exception of the tool is in the returned ToolCall, not raised.

    Args:
        tool: an instance of your tool, or the name of a tool kind.
        config: the config as in a playbook, unrendered.
        context: arguments of `tool_context`. A `logger`, `control_plane` or `report_progress` replaces the call's own.
    """
    secrets = KnownSecrets()
    for data in (context.get("credentials") or {}).values():
        secrets.add_credential(data)
    logger = context.setdefault("logger", RecordedLogger())
    plane = context.setdefault("control_plane", MemoryControlPlane())
    progress: list[Mapping[str, JsonValue]] = []
    context.setdefault("report_progress", progress.append)
    context.setdefault("keep", secrets.add)
    registry = context.pop("registry", None) or Registry([] if isinstance(tool, str) else [tool], plugins=False)
    kind = tool if isinstance(tool, str) else tool.kind
    made = tool_context(registry=registry, kind=kind, **context)
    result: ToolResult | None = None
    raised: Exception | None = None
    warnings: tuple[str, ...] = ()
    try:
        prepared = registry.prepare(kind, config, made)
        warnings = tuple(map(str, prepared.warnings))
        result = await prepared.run()
    except Exception as error:  # a tool may raise anything, and the test wants to see it
        raised = error
    finally:
        await registry.aclose()
    log = tuple(logger.records) if isinstance(logger, RecordedLogger) else ()
    return ToolCall(result, raised, warnings, log, tuple(progress), plane, secrets.texts())


def call_tool(tool: str | Tool[Any], config: Mapping[str, JsonValue], **context: Any) -> ToolCall:
    """Call a tool once on a new event loop, for plain test functions.

    Args:
        tool: an instance of your tool, or the name of a tool kind.
        config: the config as in a playbook, unrendered.
        context: arguments of `tool_context`, such as `variables` or `credentials`.
    """
    return asyncio.run(acall_tool(tool, config, **context))
