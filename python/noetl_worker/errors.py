"""All exceptions of this package.

The package's Rust code raises these classes too. `is_retryable` is True if the same call may succeed later. Ids and
codes are attributes, not only in the text. A message says what failed, with which value, and what to do.
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
    """A setting that does not parse or contradicts another setting. The worker does not start.

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
        error: any exception. Some exceptions of libraries have no text.
    """
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# ── the engine (engine/pure and rust/engine raise exactly these, with equal codes) ──────────────


class EngineError(NoetlWorkerError):
    """Input, such as invalid JSON, that this package's Rust or Python engine refuses.

    Args:
        code: the error's code, stable and equal in the Rust and the Python engine.
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
    """A case (when/then) that does not parse. The evaluation of a list of cases skips and reports such a case instead
    of raising the error."""


class ConditionError(EngineError):
    """A condition that was reached and cannot be evaluated (a text that is no number, a bad regular expression).

    Args:
        code: the error's code, stable and equal in the Rust and the Python engine.
        message: a text for people; it may change.
        case: index of the condition's case, not counting cases that do not parse. None outside of a list of cases.
        condition: index of the condition in its case.
    """

    def __init__(self, code: str, message: str, *, case: int | None = None, condition: int | None = None) -> None:
        super().__init__(code, message)
        self.case: Final = case
        self.condition: Final = condition


class EngineUnavailable(NoetlWorkerError):
    """A Rust engine (this package's compiled code) that cannot be used.

    NOETL_WORKER_ENGINE demands it and it cannot be imported, or its version differs from the package's version.
    """


class EnginePanic(NoetlWorkerError):
    """A panic in the Rust engine (this package's compiled code), which is a bug of the engine.

    The process goes on. Please report the error's text.
    """


# ── tools ───────────────────────────────────────────────────────────────────────────────────────


class ToolError(NoetlWorkerError):
    """A failure of a tool. It is reported as `call.error` and `command.failed`.

    Args:
        message: what failed, with which value, and what to do.
        kind: a word of protocol/tasks.md#results: `configuration`, `connection`, `timeout`, `auth`, ...
        retryable: True if the same call may succeed later.
        code: the tool's own code, which policy rules of a playbook can read: an HTTP status, a SQLSTATE.
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
    """A lack of descriptors, processes or memory on this machine, before the tool had any effect.

    The worker returns the command to the stream. After an effect, a `ToolError` of kind `resource` is raised instead.

    Args:
        message: what was missing, and for what.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="resource", retryable=True)

    def after_an_effect(self) -> ToolError:
        """Return the error to raise instead if the tool has already had an effect: a plain `ToolError`, so that the
        command is not returned."""
        return ToolError(str(self), kind=self.kind, retryable=True)


class ConfigurationError(ToolError):
    """A wrong or incomplete config of a tool, found before `command.started`.

    A field that the worker ignores also gives a ConfigurationError. This error is in `PreparedTool.warnings` and never
    raised.

    Args:
        problem: what is wrong, with which value, and what to do.
        field: path of the wrong field from the top of the config, such as `url` or `retry[0].then.delay`; "" if no
            single field is wrong.
        suggestion: the name that was probably meant.
        tool: kind of the tool, with which the text then begins. The worker adds the kind to an error that names a
            field.
        reason: `missing`, `unknown` (the kind has no such field), `ignored` (nothing reads the field), else `invalid`.
        kind: a word of protocol/tasks.md#results, or None for `configuration`.
        retryable: True if the same call may succeed later.
        code: the tool's own code, which policy rules of a playbook can read.
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

    def in_tool(self, tool: str, *, field: str = "", because: str = "") -> ConfigurationError:
        """Return this error of a nested config as an error of the enclosing config.

        Args:
            tool: kind of the outer tool, for an error that names no kind.
            field: the field of the enclosing config that contains the nested config.
            because: another problem, which may be the cause and is added to the text.
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
    """Return `; did you mean 'NAME'?` for the end of an error's text, or "" without a name.

    Args:
        suggestion: the name that was probably meant, or "".
    """
    return f"; did you mean {suggestion!r}?" if suggestion else ""


class CommandCancelled(ToolError):
    """A cancellation of the execution while one of its tools ran.

    Args:
        message: the reason of the cancellation. The command's terminal events repeat it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="cancelled")


class Interrupted(NoetlWorkerError):
    """A command that was stopped because the worker stops. The command is returned to the stream."""


class UnknownTool(ConfigurationError):
    """A tool kind for which no tool is registered."""


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
    """A request that was not sent: the worker held it back, or got no connection. Repeating the request is safe."""


class MaybeProcessed(TransportError):
    """A request that was sent and got no complete answer. Repeat the request only with the same ids (worker id,
    idempotency key or event id)."""


class AnswerTooLarge(MaybeProcessed):
    """An answer with more bytes than the worker reads. Repeating the request would give the same answer."""

    is_retryable = False


class ServerRefused(ControlPlaneError):
    """An HTTP answer outside 2xx.

    Args:
        message: the request and the answer, for people.
        status: the HTTP status.
        body: the first 2,000 characters of the answer's body.
        retry_after_s: seconds from the header Retry-After, or None without that header.
        is_page: True if the answer is a 404 page of a proxy before the plane. The plane may not have got the request.
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
    """An HTTP answer 401 or 403 of the plane. No command will succeed until the setting with the credential is
    corrected."""


class PlaneWithoutNats(ControlPlaneError):
    """A control plane that does not send commands over NATS. The worker would never get a command."""


# ── JetStream and playbooks ─────────────────────────────────────────────────────────────────────


class ClaimLost(ControlPlaneError):
    """A command that no longer belongs to this worker: another worker has the command, or the command is over. The
    worker learns it from a second claim before it reports the outcome.

    Args:
        claim: the plane's answer to a second claim of the command.
    """

    def __init__(self, claim: HeldByOther | AlreadyFinished | NotFound | ClaimRefused) -> None:
        super().__init__(claim.reason)
        self.claim = claim


class JetStreamError(NoetlWorkerError):
    """A stream or durable that is missing or differs from the settings. The text says how to correct it."""


class NatsUnavailable(JetStreamError):
    """A NATS server or JetStream that does not answer or refuses the login. A later try may succeed."""

    is_retryable = True


class WorkerBroken(NoetlWorkerError):
    """A failure that a running worker cannot repair by itself. The worker has drained and must be started again.

    Args:
        message: what has failed, and what to do.
        reason: word for the log event `worker_failed` (observability/last_words.py).
    """

    def __init__(self, message: str, *, reason: BrokenReason = "nats_closed") -> None:
        super().__init__(message)
        self.reason: Final = reason


class PlaybookError(NoetlWorkerError):
    """A playbook that cannot be run. The text names the step and field."""


__all__ = [name for name, one in globals().items() if isinstance(one, type) and issubclass(one, NoetlWorkerError)]
