"""The `retry` field of an `http` step: retries after a failure, and pages after a success.

Playbooks write `retry` in several ways, and `parse` makes a `RetryPlan` from each. An unknown key is an error here,
while NoETL's published workers may ignore `retry` silently.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from noetl_worker.errors import ConfigurationError, TemplateError
from noetl_worker.models.backoff import GROWTHS, asked_s
from noetl_worker.models.tool_result import ToolFailure
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.deadline import seconds
from noetl_worker.tools.fields import closest, excerpt
from noetl_worker.tools.policy import ConfigPlace, condition_holds, parse_condition

STRATEGIES: Final = ("append", "replace", "merge")
_WAIT_KEYS: Final = frozenset(
    {"max_attempts", "attempts", "max_retries", "initial_delay", "delay", "initial_delay_ms", "max_delay"}
    | {"max_delay_ms", "backoff_multiplier", "multiplier", "backoff", "jitter"}
)
_RULE_KEYS: Final = _WAIT_KEYS | {"when", "retry_when", "stop_when", "retry_on", "retry_on_status", "statuses"}
_PAGE_KEYS: Final = _WAIT_KEYS | {"while", "when", "next_call", "collect", "max_iterations"}
NEXT_FIELDS: Final = ("method", "json", "form", "body", "payload", "data")
"""Request fields that a playbook's `next_call` replaces for the next page, besides the address, `params` and
`headers`."""
_NEXT_KEYS: Final = frozenset({"url", "endpoint", "params", "headers", *NEXT_FIELDS})
_KINDS: Final = frozenset(
    {"timeout", "connection", "rate_limit", "server_error", "client_error", "auth", "not_found", "parse", "error"}
)
_RETRY: Final = ConfigPlace("http", "retry", "retry")
_DEFAULT_PAGES: Final = 100
_MAX_PAGES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about one exchange (a request and its answer) by which a retry rule decides: the failure, and the variables
    that the rule's templates may use."""

    failure: ToolFailure | None
    """Failure of the exchange; None after a success."""
    names: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class RetryRule:
    """A rule for repeating an HTTP request: on which condition, and after how long a wait. `attempts` includes the
    first request; times are in seconds."""

    when: JsonValue = None
    """Condition for repeating the exchange. None: repeat after a failure whose status is in `statuses` or whose kind is
    in `kinds`. If `statuses` and `kinds` are empty, repeat after a retryable failure."""
    stop_when: JsonValue = None
    statuses: frozenset[int] = frozenset()
    kinds: frozenset[str] = frozenset()
    attempts: int = 3
    delay_s: float = 1.0
    max_delay_s: float = 60.0
    multiplier: float = 2.0
    backoff: str = "exponential"
    jitter: bool = True


@dataclass(frozen=True, slots=True)
class Pages:
    """Rules for reading a list page by page. `next_call` has the request fields that change for the next page. `path`
    is the dotted path to the value to collect in each page, such as `result.items`."""

    condition: JsonValue
    next_call: Mapping[str, JsonValue]
    path: str | None = None
    strategy: str = "append"
    into: str = "pages"
    limit: int = _DEFAULT_PAGES


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """A parsed `retry` field: rules for repeating a failed exchange, and rules for reading pages."""

    rules: tuple[RetryRule, ...] = ()
    pages: Pages | None = None


def parse(value: JsonValue) -> RetryPlan:
    """Parse a `retry` field into a plan.

    Args:
        value: true; the maximum number of requests, including the first; {"max_attempts", "initial_delay",
            "backoff_multiplier", "max_delay", "jitter", "retry_when", "stop_when", "retry_on", "retry_on_status"};
            {"max_retries", "initial_delay_ms", "max_delay_ms", ...}; {"on_error": {...}, "on_success": {"while",
            "next_call", "collect"}}; a list of {"when", "then"}.

    Raises:
        ConfigurationError: a key or value is wrong. The error names the possible keys or values.
    """
    if value is None or value is False:
        return RetryPlan()
    if value is True:
        return RetryPlan((RetryRule(),))
    if isinstance(value, (int, float, str)):
        return RetryPlan((RetryRule(attempts=_integer(_RETRY, value, 1)),))
    if isinstance(value, Mapping):
        return _parse_object(value)
    if isinstance(value, Sequence):
        return _parse_list(value)
    raise ConfigurationError(
        f"'retry' must be true, a number, an object or a list, not {type(value).__name__}", field="retry", tool="http"
    )


def _parse_object(value: Mapping[str, JsonValue]) -> RetryPlan:
    if "on_error" not in value and "on_success" not in value:
        return RetryPlan((_rule(value, _RETRY),))
    _known(value, _RETRY, frozenset({"on_error", "on_success"}))
    on_error, on_success = value.get("on_error"), value.get("on_success")
    rules = (_rule(on_error, _RETRY.part("on_error")),) if on_error else ()
    return RetryPlan(rules, _pages(on_success, _RETRY.part("on_success")) if on_success else None)


def _parse_list(value: Sequence[JsonValue]) -> RetryPlan:
    rules: list[RetryRule] = []
    pages: Pages | None = None
    for index, rule in enumerate(value):
        where = ConfigPlace("http", f"retry[{index}]", f"retry[{index}]")
        entry = _object(rule, where)
        _known(entry, where, frozenset({"when", "then"}))
        if "when" not in entry or "then" not in entry:
            raise where.wrong(" needs 'when' and 'then'")
        then = {**_object(entry["then"], where.part("then")), "when": entry["when"]}
        if "next_call" in then or "collect" in then:
            if pages is not None:
                raise where.wrong(": an earlier rule already has 'next_call' or 'collect'; keep one of the two rules")
            pages = _pages(then, where.part("then"))
        else:
            rules.append(_rule(then, where.part("then")))
    return RetryPlan(tuple(rules), pages)


def _rule(given: JsonValue, where: ConfigPlace) -> RetryRule:
    value = _object(given, where)
    _known(value, where, _RULE_KEYS)
    statuses, kinds = _reasons(value, where)
    backoff = str(value.get("backoff") or "exponential")
    if backoff not in GROWTHS:
        raise where.part("backoff").wrong(f" {backoff!r} is none of {', '.join(GROWTHS)}")
    attempts = value.get("max_attempts", value.get("attempts"))
    if attempts is None and "max_retries" in value:
        attempts = _integer(where.part("max_retries"), value["max_retries"], 0) + 1
    return RetryRule(
        when=_condition(value, where, ("when", "retry_when")),
        stop_when=_condition(value, where, ("stop_when",)),
        statuses=statuses,
        kinds=kinds,
        attempts=3 if attempts is None else _integer(where.part("max_attempts"), attempts, 1),
        delay_s=_number(value, where, {"initial_delay_ms": 1000, "initial_delay": 1, "delay": 1}, 1.0),
        max_delay_s=_number(value, where, {"max_delay_ms": 1000, "max_delay": 1}, 60.0),
        multiplier=_number(value, where, {"backoff_multiplier": 1, "multiplier": 1}, 2.0),
        backoff=backoff,
        jitter=value.get("jitter", True) not in (False, "false", "no", 0),
    )


def _reasons(value: Mapping[str, JsonValue], where: ConfigPlace) -> tuple[frozenset[int], frozenset[str]]:
    """Return the HTTP statuses and the kinds of failure after which a rule repeats the exchange. The fields `retry_on`,
    `retry_on_status` and `statuses` may each contain statuses and kinds, as `[timeout, 429, 5xx]`."""
    statuses: set[int] = set()
    kinds: set[str] = set()
    for key in ("retry_on", "retry_on_status", "statuses"):
        given = value.get(key)
        for entry in given if isinstance(given, list) else [] if given is None else [given]:
            text = str(entry).strip().lower()
            if text.isdigit():
                statuses.add(int(text))
            elif len(text) == 3 and text[0].isdigit() and text.endswith("xx"):
                statuses.update(range(int(text[0]) * 100, int(text[0]) * 100 + 100))
            elif text in _KINDS:
                kinds.add(text)
            else:
                known = ", ".join(sorted(_KINDS))
                raise where.part(key).wrong(f": {entry!r} is neither an HTTP status nor one of {known}")
    return frozenset(statuses), frozenset(kinds)


def _pages(given: JsonValue, where: ConfigPlace) -> Pages:
    value, of_collect, of_next = _object(given, where), where.part("collect"), where.part("next_call")
    _known(value, where, _PAGE_KEYS)
    collect = value.get("collect") or {}
    collect = {"path": collect} if isinstance(collect, str) else _object(collect, of_collect)
    _known(collect, of_collect, frozenset({"strategy", "path", "into"}))
    strategy = str(collect.get("strategy") or "append")
    if strategy not in STRATEGIES:
        raise of_collect.part("strategy").wrong(f" {strategy!r} is none of {', '.join(STRATEGIES)}")
    condition = _condition(value, where, ("while", "when"))
    if condition is None:
        raise where.wrong(" needs 'while': a condition that is true if there is another page")
    next_call = _object(value.get("next_call"), of_next)
    if not next_call:
        raise of_next.wrong(" is empty, and would request the same page again: name the field that changes")
    _known(next_call, of_next, _NEXT_KEYS)
    limit = value.get("max_iterations", value.get("max_attempts", value.get("attempts", _DEFAULT_PAGES)))
    path = collect.get("path")
    return Pages(
        condition=condition,
        next_call=next_call,
        path=None if path in (None, "") else str(path),
        strategy=strategy,
        into=str(collect.get("into") or "pages"),
        limit=min(_integer(where.part("max_attempts"), limit, 1), _MAX_PAGES),
    )


def _condition(value: Mapping[str, JsonValue], where: ConfigPlace, words: tuple[str, ...]) -> JsonValue:
    """Return the parsed condition of a retry rule: the first of the fields `words` that `value` has. Return None if
    `value` has none of these fields."""
    word = next((key for key in words if value.get(key) is not None), None)
    return None if word is None else parse_condition(where, word, value[word])


def _known(value: Mapping[str, JsonValue], where: ConfigPlace, keys: frozenset[str]) -> None:
    for key in value:
        if key not in keys:
            guess = closest(key, sorted(keys))
            problem = f": unknown key {key!r}" + ("" if guess else f"; known: {', '.join(sorted(keys))}")
            raise where.wrong(problem, key, suggestion=guess)


def _object(value: JsonValue, where: ConfigPlace) -> Mapping[str, JsonValue]:
    if not isinstance(value, Mapping):
        raise where.wrong(f" must be an object, not {type(value).__name__}")
    return value


def _integer(where: ConfigPlace, value: JsonValue, least: int) -> int:
    try:
        number = int(str(value)) if not isinstance(value, bool) else least - 1
    except ValueError:
        number = least - 1
    if number < least:
        raise where.wrong(f" must be a whole number from {least}, not {value!r}")
    return number


def _number(value: Mapping[str, JsonValue], where: ConfigPlace, names: Mapping[str, int], default: float) -> float:
    """Return a duration in seconds from the first of the fields `names` that `value` has, or `default` if `value` has
    none of them. `names` maps each field to its units per second, such as 1000 for milliseconds."""
    for name, divisor in names.items():
        if value.get(name) is not None:
            given = 0.0 if value[name] in (0, 0.0, "0") else seconds(value[name], f"{where.field}.{name}", "http")
            return given / divisor
    return default


# ── deciding ────────────────────────────────────────────────────────────────────────────────────


def holds(rule: RetryRule, facts: Facts, context: ToolContext) -> bool:
    """Return True if this retry rule asks for another exchange after the last exchange, which `facts` describe."""
    if rule.stop_when is not None and is_true(rule.stop_when, facts, context):
        return False
    if rule.when is not None:
        return is_true(rule.when, facts, context)
    if facts.failure is None:
        return False
    if rule.statuses or rule.kinds:
        return facts.names["status_code"] in rule.statuses or facts.failure.kind in rule.kinds or "error" in rule.kinds
    return facts.failure.retryable


def is_true(condition: JsonValue, facts: Facts, context: ToolContext) -> bool:
    """Return True if a retry rule's condition holds after a request, or the condition `while` for reading a next page.
    Conditions mean the same as in task policies. A rendered text such as a page cursor is true; null, an empty text and
    words such as `false` and `0` are false. A condition that cannot be rendered is false.

    differs-from-upstream: NoETL's own Python worker takes only the words true, 1 and yes for true.
    """
    try:
        return condition_holds(condition, lambda value: context.values.render(value, facts.names))
    except TemplateError as error:  # `error.status` after a success: the condition does not hold
        context.logger.debug("http_retry_condition", condition=excerpt(str(condition), 160), problem=str(error))
        return False


def delay_s(rule: RetryRule, tries: int) -> float:
    """Return the seconds to wait before the next retry, after `tries` requests. With the rule's `jitter` the wait is
    multiplied by a random factor from 0.5 to 1.5."""
    delay = min(asked_s(rule.backoff, rule.delay_s, tries, multiplier=rule.multiplier), rule.max_delay_s)
    return delay * random.uniform(0.5, 1.5) if rule.jitter else delay
