"""Kind `result_fetch`: fetches a result from the control plane's result store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from noetl_worker.errors import ConfigurationError, ControlPlaneError, ServerRefused
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.deadline import in_time
from noetl_worker.tools.error_kinds import plane_failure
from noetl_worker.tools.fields import excerpt, ignored_field

RESULT_SCHEME: Final = "noetl://"


@dataclass(frozen=True, slots=True)
class ResultFetchConfig:
    """Fetches a stored result by its reference, through the control plane that issued the command."""

    ref: str | dict[str, Any]
    """Reference of the stored result, noetl://execution/..., or an object with the reference under `ref`. Planes give a
    step such objects."""
    prefer: Literal["http", "flight"] = "http"
    """Preferred protocol. This worker has no Arrow Flight. For `flight` the worker warns that the field is ignored and
    uses HTTP, as upstream does."""
    flight_endpoint: str | None = None
    """Has no effect, because results are fetched over HTTP. The worker warns about this field."""
    bearer_token: str | None = field(default=None, repr=False)
    """Has no effect, because the worker uses its own access to the control plane. The worker warns about this field."""
    timeout: float | None = None
    """Maximum time of the fetch in seconds; absent: the command's remaining time."""

    def __post_init__(self) -> None:
        parse_reference(self.ref)


class ResultFetchTool:
    """Tool of kind `result_fetch`. Data: the stored JSON, unchanged.

    Errors: not_found (no such result, or it has expired), connection.
    """

    kind: ClassVar[str] = "result_fetch"
    config_model: ClassVar[type] = ResultFetchConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"result_ref": "ref", "uri": "ref", "reference": "ref"}

    def ignored(self, config: ResultFetchConfig) -> list[ConfigurationError]:
        """Return a warning for each given field that has no effect in this worker: `prefer: flight`, `flight_endpoint`
        and `bearer_token`."""
        over_http = "results are fetched over HTTP"
        reasons = {
            "prefer": over_http if config.prefer == "flight" else None,
            "flight_endpoint": over_http if config.flight_endpoint is not None else None,
            "bearer_token": "the worker's own access serves" if config.bearer_token is not None else None,
        }
        return [ignored_field(self.kind, name, why) for name, why in reasons.items() if why is not None]

    async def run(self, config: ResultFetchConfig, context: ToolContext) -> ToolResult:
        return await in_time(resolve(parse_reference(config.ref), context), context.timeout_s)


def parse_reference(value: JsonValue) -> str:
    """Return a reference as text. `value` is the text `noetl://...`, or an object with the text under `ref`. Raises
    ConfigurationError for any other value."""
    given = value.get("ref") if isinstance(value, Mapping) else value
    if not isinstance(given, str) or not given.startswith(RESULT_SCHEME):
        # the Python plane would echo such a text (protocol/results.md#store)
        raise ConfigurationError(
            f"ref {excerpt(str(given), 160)!r} is no reference: give text that starts with {RESULT_SCHEME}", field="ref"
        )
    return given


async def resolve(reference: str, context: ToolContext) -> JsonValue:
    """Fetch the stored JSON of a reference from the control plane. Raises ToolError: not_found, auth, server_error or
    connection."""
    try:
        return await context.worker.control_plane.resolve_result(reference)
    except ControlPlaneError as error:
        is_gone = isinstance(error, ServerRefused) and error.is_not_found
        text = f"the control plane does not give {reference}: {error}"
        text = f"no result at {reference}: never stored, or expired; run the step that stores it" if is_gone else text
        raise plane_failure(text, error) from error
