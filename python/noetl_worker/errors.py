"""All exceptions of this package.

Both engines raise these classes; the Rust engine imports them from here. `is_retryable` is True if the same call may
succeed later. Ids and codes are attributes, not only text. A message says what failed, with which value, and what to
do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from noetl_worker.models.claim import AlreadyFinished, ClaimRefused, HeldByOther, NotFound

ConfigurationReason: TypeAlias = Literal["invalid", "missing", "unknown", "ignored"]
BrokenReason: TypeAlias = Literal["nats_closed", "keepalive"]


class NoetlWorkerError(Exception):
    """Base class of all exceptions of this package."""

    is_retryable: ClassVar[bool] = False


class SettingsError(NoetlWorkerError):
    """A setting that does not parse or contradicts another one. The worker does not start.

    Args:
        variable: the setting's environment variable.
        value: the value that was given.
        allowed: the values that are allowed, and what to do.
    """

    def __init__(self, variable: str, value: str, allowed: str) -> None:
        super().__init__(f"{variable}={value!r} is not usable: {allowed}")
        self.variable: Final = variable
        self.value: Final = value
        self.allowed: Final = allowed


def describe(error: BaseException) -> str:
    """Return `TypeName: text`, or the type's name alone for an exception without a text.

    Args:
        error: any exception; several of the libraries' exceptions have no text.
    """
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# ── the engine (engine/pure and rust/engine raise exactly these, with equal codes) ──────────────


class EngineError(NoetlWorkerError):
    """Input that the engine refuses.

    Args:
        code: the error's code, stable and equal in both engines.
        message: a text for people; it may change.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code: Final = code


class DocumentError(EngineError):
    """Bytes that are not a JSON document within the limits (codes: json_syntax, json_depth, json_utf8, ...)."""


class NotificationError(EngineError):
    """A JetStream message that is not a command notification and can never be claimed."""


class CaseError(EngineError):
    """A case that does not parse. It is reported for the one case, never raised for a whole table."""


class ConditionError(EngineError):
    """A condition that was reached and cannot be evaluated (a text that is no number, a bad regular expression).

    Args:
        code: the error's code, stable and equal in both engines.
        message: a text for people; it may change.
        case: index of the condition's case, not counting cases that do not parse; None outside a case table.
        condition: index of the condition in its case.
    """

    def __init__(self, code: str, message: str, *, case: int | None = None, condition: int | None = None) -> None:
        super().__init__(code, message)
        self.case: Final = case
        self.condition: Final = condition


class EngineUnavailable(NoetlWorkerError):
    """An engine, chosen by NOETL_WORKER_ENGINE, that is not installed or has another version."""


class EnginePanic(NoetlWorkerError):
    """A bug in the Rust engine. The process goes on; please report the text."""


# ── tools ───────────────────────────────────────────────────────────────────────────────────────


class ToolError(NoetlWorkerError):
    """A failure of a tool. It is reported as `call.error` and `command.failed`.

    Args:
        message: says what failed, with which value, and what to do.
        kind: a word of protocol/tasks.md#results: `configuration`, `connection`, `timeout`, `auth`, ...
        retryable: True if the same call may succeed later.
        code: the tool's own code, for rules: an HTTP status, a SQLSTATE.
    """

    default_kind: ClassVar[str] = "unknown"

    def __init__(
        self, message: str, *, kind: str | None = None, retryable: bool = False, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.kind: Final = kind or self.default_kind
        self.retryable: Final = retryable
        self.code: Final = code


class ResourceShortage(ToolError):
    """A lack of descriptors, processes or memory on this machine before the tool had any effect.

    The command can be returned. After an effect, a `ToolError` of kind `resource` is raised instead.

    Args:
        message: what was missing, and for what.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="resource", retryable=True)

    def after_an_effect(self) -> ToolError:
        """Return the error to raise if the tool has already had an effect."""
        return ToolError(str(self), kind=self.kind, retryable=True)


class ConfigurationError(ToolError):
    """The tool's config is wrong or incomplete; found before `command.started`.

    What a worker only ignores in a config is one too, in `PreparedTool.warnings`, and is never raised.

    Args:
        problem: what is wrong, with which value, and what to do; the whole text where there is no `tool`.
        field: its path from the top of the config, as `url` or `retry[0].then.delay`; empty for no single field.
        suggestion: the name that was probably meant.
        tool: the kind, at the front of the text; the worker adds it to an error that has a field.
        reason: `missing`, `unknown` (no such field), `ignored` (nothing reads it), else `invalid`.
        kind: as of ToolError.
        retryable: as of ToolError.
        code: as of ToolError.
    """

    default_kind = "configuration"

    def __init__(
        self,
        problem: str,
        *,
        field: str = "",
        suggestion: str = "",
        tool: str = "",
        reason: ConfigurationReason = "invalid",
        kind: str | None = None,
        retryable: bool = False,
        code: str | None = None,
    ) -> None:
        text = f"{tool}: {problem}" if tool else problem
        super().__init__(text + did_you_mean(suggestion), kind=kind, retryable=retryable, code=code)
        self.problem: Final = problem
        self.field: Final = field
        self.suggestion: Final = suggestion
        self.tool: Final = tool
        self.reason: Final = reason

    def within(self, tool: str, *, field: str = "", because: str = "") -> ConfigurationError:
        """Return the same error as one of the config that holds the one which was checked.

        Args:
            tool: its kind, for an error that names none.
            field: the field which holds it.
            because: what else is wrong, and may be the reason.
        """
        return ConfigurationError(
            f"{self.problem} ({because})" if because else self.problem,
            field=".".join(filter(None, (field, self.field))),
            suggestion=self.suggestion,
            tool=self.tool or tool,
            reason=self.reason,
            kind=self.kind,
            retryable=self.retryable,
            code=self.code,
        )


def did_you_mean(suggestion: str) -> str:
    """Return the end of a sentence that offers another name; nothing without one.

    Args:
        suggestion: a known name.
    """
    return f"; did you mean {suggestion!r}?" if suggestion else ""


class CommandCancelled(ToolError):
    """A cancellation of the execution while its tool ran.

    Args:
        message: the reason, for the command's terminal events.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="cancelled")


class Interrupted(NoetlWorkerError):
    """A tool that was ended because the worker stops. The command is returned."""


class UnknownTool(ConfigurationError):
    """A kind for which no tool is registered."""


class TemplateError(ToolError):
    """A template that does not compile or cannot be rendered."""

    default_kind = "template"


class CredentialError(ToolError):
    """A credential alias or keychain reference that cannot be resolved."""

    default_kind = "auth"


# ── the control plane ───────────────────────────────────────────────────────────────────────────


class ControlPlaneError(NoetlWorkerError):
    """A control plane that could not be reached, or refused the request."""


class TransportError(ControlPlaneError):
    """A request without an answer. The subclass says whether the plane may have processed the request."""

    is_retryable = True


class NotSent(TransportError):
    """A request that was not sent (refused, unreachable, no free connection in time). It is safe to repeat."""


class MaybeProcessed(TransportError):
    """A request that was sent and got no complete answer. Repeat it only with the same identity."""


class AnswerTooLarge(MaybeProcessed):
    """The answer has more bytes than are read of one, and has them at every try."""

    is_retryable = False


class ServerRefused(ControlPlaneError):
    """An HTTP answer outside 2xx.

    Args:
        message: the request and the answer, for people.
        status: the HTTP status.
        body: the first 2,000 characters of the answer's body.
        retry_after_s: seconds from the header Retry-After; None without one.
        is_page: True for a 404 page of a proxy in between, which says nothing about the plane's answer.
    """

    def __init__(
        self, message: str, *, status: int, body: str, retry_after_s: float | None = None, is_page: bool = False
    ) -> None:
        super().__init__(message)
        self.is_page: Final = is_page
        self.status: Final = status
        self.body: Final = body
        self.retry_after_s: Final = retry_after_s

    @property
    def is_not_found(self) -> bool:
        return self.status == 404 and not self.is_page


class AuthRefused(ServerRefused):
    """An answer 401 or 403. No command will succeed until the credential setting is corrected."""


class PlaneWithoutNats(ControlPlaneError):
    """A control plane that does not send commands over NATS. This worker would never get one."""


# ── JetStream and playbooks ─────────────────────────────────────────────────────────────────────


class ClaimLost(ControlPlaneError):
    """A command that belongs to another worker or is over, found when its outcome was to be reported.

    Args:
        claim: the plane's answer to a second claim of the command.
    """

    def __init__(self, claim: HeldByOther | AlreadyFinished | NotFound | ClaimRefused) -> None:
        super().__init__(claim.reason)
        self.claim = claim


class JetStreamError(NoetlWorkerError):
    """A stream or durable that is missing or differs from the settings. The text says how to correct it."""


class NatsUnavailable(JetStreamError):
    """NATS or its JetStream does not answer, or refuses the login: that may pass, without a change here."""

    is_retryable = True


class WorkerBroken(NoetlWorkerError):
    """A failure that a running worker cannot repair by itself. The worker has drained and must be started again.

    Args:
        message: what is gone, and what to do.
        reason: the same as a word of `worker_failed` (observability/last_words.py).
    """

    def __init__(self, message: str, *, reason: BrokenReason = "nats_closed") -> None:
        super().__init__(message)
        self.reason: Final = reason


class PlaybookError(NoetlWorkerError):
    """A playbook that cannot be run. The text names the step and field."""


__all__ = [name for name, one in globals().items() if isinstance(one, type) and issubclass(one, NoetlWorkerError)]
