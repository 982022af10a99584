"""Every exception this package raises, on one screen.

Both engines raise these classes (the Rust one imports them from here). Each class says in `is_retryable`
whether the same call may succeed later; ids and codes are attributes, not only text. A message says what
failed, with which value, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from noetl_worker.models.claim import AlreadyFinished, ClaimRefused, HeldByOther, NotFound


class NoetlWorkerError(Exception):
    """Root of the tree."""

    is_retryable: ClassVar[bool] = False


class SettingsError(NoetlWorkerError):
    """A setting does not parse or contradicts another; the worker does not start.

    Args:
        variable: its name in the environment.
        value: what was given.
        allowed: what would be right, and what to do.
    """

    def __init__(self, variable: str, value: str, allowed: str) -> None:
        super().__init__(f"{variable}={value!r} is not usable: {allowed}")
        self.variable: Final = variable
        self.value: Final = value
        self.allowed: Final = allowed


def describe(error: BaseException) -> str:
    """`TypeName: text`.

    Args:
        error: several of the libraries' have no text of their own.
    """
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# ── the engine (engine/pure and rust/engine raise exactly these, with equal codes) ──────────────


class EngineError(NoetlWorkerError):
    """Input the engine refuses.

    Args:
        code: stable and equal in both engines.
        message: for people; it may change.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code: Final = code


class DocumentError(EngineError):
    """Bytes that are not a JSON document within the limits (codes: json_syntax, json_depth, json_utf8, ...)."""


class NotificationError(EngineError):
    """A JetStream message that is not a command notification; it can never be claimed."""


class CaseError(EngineError):
    """One case that does not parse. Reported per case, never raised for a whole table."""


class ConditionError(EngineError):
    """A reached condition cannot be evaluated (text that is no number, a bad regular expression).

    Args:
        code: stable and equal in both engines.
        message: for people; it may change.
        case: index of its case, where those that do not parse are not counted; None outside a case table.
        condition: its index in that case.
    """

    def __init__(self, code: str, message: str, *, case: int | None = None, condition: int | None = None) -> None:
        super().__init__(code, message)
        self.case: Final = case
        self.condition: Final = condition


class EngineUnavailable(NoetlWorkerError):
    """The engine asked for by NOETL_WORKER_ENGINE is not installed, or its version differs."""


class EnginePanic(NoetlWorkerError):
    """The Rust engine hit a bug. The process goes on; please report the text."""


# ── tools ───────────────────────────────────────────────────────────────────────────────────────


class ToolError(NoetlWorkerError):
    """A tool could not do its work; becomes `call.error` + `command.failed`.

    Args:
        message: says what failed, with which value, and what to do.
        kind: a word of protocol/tasks.md#results: `configuration`, `connection`, `timeout`, `auth`, ...
        retryable: whether the same call may succeed later.
        code: of the tool's own, for rules: an HTTP status, a SQLSTATE.
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
    """This machine had no descriptor, process or memory left, and the tool has had no effect yet: the command can be
    returned. Where it has had one, `ToolError` of kind `resource` says so.

    Args:
        message: what was missing, and for what.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="resource", retryable=True)

    def after_an_effect(self) -> ToolError:
        """What it is where something else was done before."""
        return ToolError(str(self), kind=self.kind, retryable=True)


class ConfigurationError(ToolError):
    """The tool's config is wrong or incomplete; found before `command.started`."""

    default_kind = "configuration"


class CommandCancelled(ToolError):
    """Somebody cancelled the execution while its tool ran.

    Args:
        message: for the command's end.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="cancelled")


class Interrupted(NoetlWorkerError):
    """The worker stops, and this command's tool was stopped for it: the command is returned."""


class UnknownTool(ConfigurationError):
    """No tool of this kind is registered."""


class TemplateError(ToolError):
    """A template does not compile or cannot be rendered."""

    default_kind = "template"


class CredentialError(ToolError):
    """A credential alias or keychain reference cannot be resolved."""

    default_kind = "auth"


# ── the control plane ───────────────────────────────────────────────────────────────────────────


class ControlPlaneError(NoetlWorkerError):
    """The control plane could not be reached, or refused."""


class TransportError(ControlPlaneError):
    """No answer. Use the subclass to know whether the request may have been processed."""

    is_retryable = True


class NotSent(TransportError):
    """The request did not leave (refused, unreachable, no free connection in time): safe to repeat."""


class MaybeProcessed(TransportError):
    """The request left and no complete answer came back: repeat only with the same identity."""


class ServerRefused(ControlPlaneError):
    """An HTTP answer outside 2xx.

    Args:
        message: the request and the answer, for people.
        status: of HTTP.
        body: its first 2,000 characters.
        retry_after_s: seconds, of the header Retry-After; None without one.
        is_page: whether it is a 404 of a proxy between, which says nothing of what the plane would answer.
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
    """401 or 403: no command will succeed until the credential setting is mended."""


class PlaneWithoutNats(ControlPlaneError):
    """A control plane without NATS, and no bridge: a worker in front of it would never get a command."""


# ── JetStream and playbooks ─────────────────────────────────────────────────────────────────────


class ClaimLost(ControlPlaneError):
    """The command of the outcome belongs to another worker, or is over.

    Args:
        claim: the plane's answer, when it was asked again.
    """

    def __init__(self, claim: HeldByOther | AlreadyFinished | NotFound | ClaimRefused) -> None:
        super().__init__(claim.reason)
        self.claim = claim


class JetStreamError(NoetlWorkerError):
    """The stream or the durable is missing or differs from the settings; the text has the fix."""


class WorkerBroken(NoetlWorkerError):
    """A worker that was pulling lost what it cannot mend by itself; it has drained, and is to be started again."""


class PlaybookError(NoetlWorkerError):
    """A playbook that cannot be run; names the step and field."""


__all__ = [name for name, one in globals().items() if isinstance(one, type) and issubclass(one, NoetlWorkerError)]
