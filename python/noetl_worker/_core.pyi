"""The Rust engine (rust/binding). `noetl_worker.engine` chooses between this module and `engine.pure`.

Every call takes bytes or small scalars and gives a frozen value; exceptions are those of `noetl_worker.errors`, with
the codes of `engine/protocol.py`. The GIL is released for inputs over 64 KiB, and for every script. A bug in Rust is
`errors.EnginePanic`; the process goes on. All functions may be called from any thread.
"""

from collections.abc import Callable, Sequence
from typing import Final, final

from noetl_worker.engine.protocol import CaseMatch, Side
from noetl_worker.models import Envelope, FitRules, FittedResult, JsonValue, SkippedCase

__all__ = [
    "BUILD_PROFILE",
    "FEATURES",
    "SOURCE_HASH",
    "CaseTable",
    "NeedsTemplate",
    "__version__",
    "_panic",
    "compile_cases",
    "decide",
    "decode_notification",
    "evaluate",
    "find_marks",
    "fit_result",
    "redact_text",
    "run_rhai",
]

__version__: Final[str]
"""Version of the crate; `noetl_worker.engine` refuses one that is not the package's."""

SOURCE_HASH: Final[str]
"""FNV-1a over the Rust sources this was built from (16 hexadecimal digits)."""

BUILD_PROFILE: Final[str]
"""`release` or `dev`; a dev build is several times slower."""

FEATURES: Final[tuple[str, ...]]
"""`("rhai",)` when the rhai tool is in."""

def decode_notification(data: bytes) -> Envelope:
    """Decode a command notification; raises NotificationError. Cost: about half a microsecond."""

def compile_cases(data: bytes) -> CaseTable:
    """Parse a JSON array of cases; any other JSON value is an empty table; raises DocumentError."""

def decide(left: bytes, op: str, right: bytes | None) -> bool:
    """Apply one operator to two JSON values; raises CaseError, ConditionError, DocumentError."""

def evaluate(condition: bytes, variables: bytes, data: bytes | None) -> bool:
    """Evaluate one condition without templates; raises CaseError, ConditionError, DocumentError."""

def fit_result(data: bytes, rules: FitRules) -> FittedResult:
    """Redact, measure and preview a JSON document; raises DocumentError."""

def redact_text(text: str, secrets: Sequence[str], words: Sequence[str] | None = None) -> str:
    """Replace known secrets, credentials by their shape, and the value of `password=...`."""

def find_marks(data: bytes) -> int:
    """The sum of the marks of a JSON text: 1 templates, 2 references, 4 secrets. Cost: 2.4 nanoseconds a byte."""

def _panic(text: str) -> None:
    """Panic with this text; raises EnginePanic. For the tests."""

@final
class CaseTable:
    """Parsed cases; see `engine.protocol.CompiledCases`. Immutable, may be shared by threads."""

    @property
    def skipped(self) -> tuple[SkippedCase, ...]: ...
    @property
    def variables(self) -> tuple[str, ...]: ...
    @property
    def reads_result(self) -> bool: ...
    def __len__(self) -> int: ...
    def match(self, variables: bytes, data: bytes | None) -> CaseMatch | NeedsTemplate | None: ...

@final
class NeedsTemplate:
    """A match that waits for a templated side; see `engine.protocol.PendingMatch`."""

    @property
    def case(self) -> int: ...
    @property
    def condition(self) -> int: ...
    @property
    def side(self) -> Side: ...
    @property
    def template(self) -> JsonValue: ...
    def resume(self, rendered: bytes) -> CaseMatch | NeedsTemplate | None: ...

def run_rhai(
    code: str,
    variables: bytes,
    timeout_s: float | None,
    refusal: Callable[[str, str], str | None],
) -> tuple[str, bytes | None, str, str]:
    """Run a script; only in builds with the `rhai` feature. `refusal(host, address)`: why it may not connect there.

    Returns (kind, value as JSON or None, message, output); kind is `success`, `configuration`, `script`, `limit` or
    `timeout`.
    """
