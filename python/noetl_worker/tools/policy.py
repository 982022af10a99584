"""Policy rules of a task: what to do with its outcome (protocol/tasks.md#policies).

Rules are parsed before anything runs, so that an unknown verb is refused instead of ignored. The first rule that
holds decides. A condition that cannot be evaluated does not hold, and a warning is logged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from noetl_worker.errors import ConfigurationError, TemplateError
from noetl_worker.models import backoff
from noetl_worker.models.tool_result import ToolResult, ToolStatus
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.templates.template import has_template, truthy
from noetl_worker.tools import fields
from noetl_worker.tools.contract import ToolForm

VERBS: Final = ("continue", "retry", "break", "jump", "fail")
_PREVIOUS: Final = frozenset({"previous", "prev", "_previous", "@previous"})
_ATTEMPTS: Final = 3
_DELAY_S: Final = 1.0
_REMOVED: Final = ("expr", "set_vars", "eval", "set_ctx", "set_iter")
_POLICY_WORDS: Final = frozenset({"rules", "on_unmatched"})
_RULE_WORDS: Final = frozenset({"when", "then", "else", "name", "desc", "description"})
_ACTION_WORDS: Final = frozenset({"do", "attempts", "backoff", "delay", "to", "set"})
_WORDS: Final = frozenset({"true", "false", "yes", "no", "1", "0", "on", "off", "none", "null", ""})


@dataclass(frozen=True, slots=True)
class Action:
    """The `then` of a rule. `attempts` counts every execution of the task, including the first."""

    do: str = "continue"
    attempts: int = _ATTEMPTS
    backoff: str = "none"
    delay_s: float = _DELAY_S
    to: str | None = None
    set: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One rule. `when` is True for `else`; an `action` of None means the default action."""

    when: JsonValue
    action: Action | None
    is_bare: bool = False
    """True for an action with neither `when` nor `else`; the plane decides its meaning (`ToolForm.bare_rule_holds`)."""


class StatusWord(str):
    """The value of `output.status`: it prints as the plane's worker would, and equals every word for the status
    (protocol/tasks.md#policies)."""

    __slots__ = ("_words",)
    _words: frozenset[str]

    @classmethod
    def of(cls, status: ToolStatus, form: ToolForm) -> StatusWord:
        """Return a word that prints as `success` (Rust plane) or `ok` (Python plane), or as `error`."""
        words = {"ok", "success"} if status is ToolStatus.SUCCESS else {"error", status.value}
        word = cls(form.success_word if status is ToolStatus.SUCCESS else "error")
        word._words = frozenset(words)
        return word

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str.__str__(other) in self._words

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def outcome_of(result: ToolResult, attempt: int, form: ToolForm) -> dict[str, JsonValue]:
    """Return the `output` of a task as rules see it: {status, ok, data, error, http, exit_code, meta}.

    `error` is None on success.
    """
    http: dict[str, JsonValue] = {"status": None}
    if isinstance(result.data, Mapping) and "status_code" in result.data:
        http = {"status": result.data["status_code"], "headers": result.data.get("headers")}
    error = None
    if result.error is not None:
        failure = result.error
        error = {
            "kind": failure.kind,
            "retryable": failure.retryable,
            "message": failure.message,
            "code": failure.code,
        }
        if form.error_has_status_code:
            error["status_code"] = http["status"]
    return {
        "status": StatusWord.of(result.status, form),
        "ok": result.status is ToolStatus.SUCCESS,
        "data": result.data,
        "error": error,
        "http": http,
        "exit_code": result.exit_code,
        "meta": {"attempt": attempt, "duration_ms": result.duration_ms},
    }


def choose(
    rules: Sequence[PolicyRule], render: Callable[[JsonValue], JsonValue], warn: Callable[[str], Any], form: ToolForm
) -> tuple[bool, Action | None]:
    """Return (True if a rule held, its action). `warn` is called with the reason why a rule could not hold."""
    for index, rule in enumerate(rules):
        if rule.is_bare and not form.bare_rule_holds:
            warn(f"rule {index} has neither 'when' nor 'else': on this control plane it never holds")
            continue
        try:
            holds = condition_holds(rule.when, render)
        except TemplateError as error:
            warn(str(error))
            continue
        if holds:
            return True, rule.action
    return False, None


def condition_holds(condition: JsonValue, render: Callable[[JsonValue], JsonValue]) -> bool:
    """Return True if a parsed condition holds. Raises TemplateError if it cannot be evaluated."""
    return condition if isinstance(condition, bool) else truthy(render(condition))


def retry_delay(action: Action, retries: int) -> float:
    """Return the seconds before the next try; `retries` counts from 1.

    There is no jitter, and no cap but the command's timeout.
    """
    return backoff.asked_s(action.backoff, action.delay_s, retries)


def place_of(to: str | None, position: int, labels: Sequence[str]) -> int | None:
    """Return the index that a jump from `position` leads to, or None if there is none. The last task of a name wins."""
    if to is not None and to.lower() in _PREVIOUS:
        return position - 1 if position else None
    return max((index for index, label in enumerate(labels) if label == to), default=None)


def not_found(to: str | None, label: str) -> str:
    return f"task_sequence: jump target {to!r} of task {label!r} not found"


def jumps_nowhere(rules: Sequence[PolicyRule], position: int, labels: Sequence[str]) -> list[str]:
    """Return the errors of jumps to unknown tasks, for the log before a sequence begins.

    Such a rule fails the task only when it holds.
    """
    jumps = [rule.action.to for rule in rules if rule.action is not None and rule.action.do == "jump"]
    return [not_found(to, labels[position]) for to in jumps if place_of(to, position, labels) is None]


# ── parsing ─────────────────────────────────────────────────────────────────────────────────────


def parse_policy(label: str, policy: JsonValue) -> tuple[PolicyRule, ...]:
    """Parse {"rules": [...], "on_unmatched": "continue"|"fail"} or a list of rules; None gives ().

    Raises:
        ConfigurationError: names the task, the rule's position and the word that is wrong.
    """
    if policy is None:
        return ()
    rules = policy.get("rules") or [] if isinstance(policy, Mapping) else policy
    if not isinstance(rules, Sequence) or isinstance(rules, str):
        raise ConfigurationError(
            f"task_sequence: task {label!r}: policy must be an object with 'rules', or a list of rules"
        )
    parsed = [_parse_rule(f"task_sequence: task {label!r}: rule {index}", rule) for index, rule in enumerate(rules)]
    unmatched = policy.get("on_unmatched") if isinstance(policy, Mapping) else None
    if unmatched is not None:
        parsed.append(PolicyRule(True, _parse_action(f"task_sequence: task {label!r}: on_unmatched", unmatched)))
    return tuple(parsed)


def _parse_rule(where: str, rule: JsonValue) -> PolicyRule:
    if not isinstance(rule, Mapping):
        raise ConfigurationError(f"{where} must be an object with 'when' and 'then', or 'else'")
    _refuse_removed(where, rule)
    if "when" in rule:
        return PolicyRule(parse_condition(where, "when", rule["when"]), _parse_action(where, rule.get("then")))
    if "else" in rule:
        return PolicyRule(True, _parse_action(where, _then_of_else(rule["else"])))
    if "then" not in rule:
        raise ConfigurationError(f"{where} has neither 'when' nor 'else'")
    return PolicyRule(True, _parse_action(where, rule["then"]), is_bare=True)


def _then_of_else(otherwise: JsonValue) -> JsonValue:
    """Return the `then` of an `else`. Both published workers ignore an action written anywhere else in it."""
    return otherwise.get("then") if isinstance(otherwise, Mapping) else None


def _refuse_removed(where: str, given: Mapping[str, JsonValue]) -> None:
    """Raise ConfigurationError for words of older playbooks: ignoring one would lose a value it sets or decides."""
    removed = [word for word in _REMOVED if word in given]
    if removed:
        raise ConfigurationError(f"{where}: {removed[0]!r} is not supported; use 'when', 'then' and 'set'")


def parse_condition(where: str, word: str, when: JsonValue) -> JsonValue:
    """Return a condition in the form that `condition_holds` takes.

    Raises:
        ConfigurationError: text that is neither a template nor a word for true or false.
    """
    if isinstance(when, str) and not has_template(when):
        if when.strip().lower() not in _WORDS:  # as text without template marks it would always be true
            shown = fields.excerpt(when, 80)
            raise ConfigurationError(f"{where}: '{word}: {shown}' is no template; write it as {{{{ ... }}}}")
        return truthy(when)
    return when


def _parse_action(where: str, then: JsonValue) -> Action | None:
    if then is None:
        return None
    if isinstance(then, str):
        then = {"do": then}
    if not isinstance(then, Mapping):
        raise ConfigurationError(f"{where}: 'then' must be an object like {{do: retry, attempts: 3}}")
    _refuse_removed(where, then)
    verb = str(then.get("do", "continue")).strip().lower()
    if verb not in VERBS:
        raise ConfigurationError(f"{where}: 'do: {verb}' is none of {', '.join(VERBS)}")
    assignments = then.get("set") or {}
    if not isinstance(assignments, Mapping):
        raise ConfigurationError(f"{where}: 'set' must be an object")
    to, attempts, delay_s = then.get("to"), _count(then.get("attempts")), _seconds(then.get("delay"))
    # differs-from-upstream: a written `delay` counts without `backoff` too; both workers ignore it
    # (protocol/tasks.md#policies).
    return Action(
        do=verb,
        attempts=_ATTEMPTS if attempts is None else max(1, attempts),
        backoff=_backoff(then),
        delay_s=_DELAY_S if delay_s is None else max(0.0, delay_s),
        to=to.strip() if isinstance(to, str) else None,
        set=assignments,
    )


def _backoff(then: Mapping[str, JsonValue]) -> str:
    return str(then.get("backoff", "fixed" if "delay" in then else "none")).strip().lower()


def _count(value: JsonValue) -> int | None:
    """Return a whole number, also from text, or None for any other value: the default is used then (recorded:
    policy-numbers)."""
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _seconds(value: JsonValue) -> float | None:
    """Return a finite number, also from text, or None for any other value."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def unknown_words(label: str, policy: JsonValue) -> list[str]:
    """Return warnings about words in a policy that nothing reads. The policy must have been parsed before."""
    if not isinstance(policy, Mapping):
        policy = {"rules": policy or []}
    found = _unknown(f"task_sequence: task {label!r}: policy", policy, _POLICY_WORDS)
    for index, rule in enumerate(policy.get("rules") or []):
        where = f"task_sequence: task {label!r}: rule {index}"
        found += _unknown(where, rule, _RULE_WORDS)
        if "else" in rule and "when" in rule:
            found.append(f"{where}: 'else' beside 'when' is ignored; make it a rule of its own")
        elif "else" in rule and _then_of_else(rule["else"]) is None:
            found.append(
                f"{where}: 'else' has no 'then': the default action is taken; write else: {{then: {{do: ...}}}}"
            )
        for action in (rule.get("then"), _then_of_else(rule.get("else"))):
            found += _unknown(where, action, _ACTION_WORDS) + _replaced(where, action)
    return found


def _replaced(where: str, action: JsonValue) -> list[str]:
    """Return warnings about values that are replaced by a default."""
    if not isinstance(action, Mapping):
        return []
    count, seconds, growth = (action.get(name) for name in ("attempts", "delay", "backoff"))
    found = []
    if count is not None and _count(count) is None:
        found.append(f"{where}: 'attempts: {count}' is no whole number: {_ATTEMPTS} are taken")
    if seconds is not None and _seconds(seconds) is None:
        found.append(f"{where}: 'delay: {seconds}' is no number: {_DELAY_S:g} s is taken")
    if growth is not None and _backoff(action) not in backoff.GROWTHS:
        found.append(f"{where}: 'backoff: {growth}' is none of {', '.join(backoff.GROWTHS)}: fixed is taken")
    return [fields.excerpt(text, 300) for text in found]


def _unknown(where: str, given: JsonValue, known: frozenset[str]) -> list[str]:
    if not isinstance(given, Mapping):
        return []
    words = [word for word, value in given.items() if word not in known and value is not None]
    return [f"{where}: {word!r} is ignored{fields.nearest(word, sorted(known))}" for word in words]
