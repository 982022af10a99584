"""Policy rules of a task: what to do with its outcome (protocol/tasks.md#policies).

Rules are parsed before the first task runs, so that an unknown verb is refused instead of ignored. The first rule whose
condition is true decides. A condition that cannot be evaluated counts as false, and a warning is logged.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from noetl_worker.errors import ConfigurationError, TemplateError
from noetl_worker.models import backoff
from noetl_worker.models.tool_result import ToolResult, ToolStatus
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.templates.template import has_template, truthy
from noetl_worker.tools import fields
from noetl_worker.tools.contract import ToolForm

_TOOL: Final = "task_sequence"
VERBS: Final = ("continue", "retry", "break", "jump", "fail")
_PREVIOUS: Final = frozenset({"previous", "prev", "_previous", "@previous"})
_ATTEMPTS: Final = 3
_DELAY_S: Final = 1.0
_REMOVED: Final = ("expr", "set_vars", "eval", "set_ctx", "set_iter")
_POLICY_WORDS: Final = frozenset({"rules", "on_unmatched"})
_RULE_WORDS: Final = frozenset({"when", "then", "else", "name", "desc", "description"})
_ACTION_WORDS: Final = frozenset({"do", "attempts", "backoff", "delay", "to", "set"})
_WORDS: Final = frozenset({"true", "false", "yes", "no", "1", "0", "on", "off", "none", "null", ""})


class ConfigPlace(NamedTuple):
    """The position of a part of a config, such as `rules[0]`. Errors and warnings name this position."""

    tool: str
    where: str
    """The position as error texts show it: `task 'a': rule 0`."""
    field: str
    """The position as a path: `rules[0]`."""

    def wrong(self, problem: str, name: str = "", **more: Any) -> ConfigurationError:
        """Return the error about this part of the config, or about its field `name`."""
        path = ".".join(filter(None, (self.field, name)))
        return ConfigurationError(f"{self.where}{problem}", field=path, tool=self.tool, **more)

    def part(self, name: str) -> ConfigPlace:
        """Return a ConfigPlace for the field `name` of this part of the config. Both its path (`field`) and its text in
        errors (`where`) end with the name, as in `retry.on_error`."""
        return self._replace(where=f"{self.where}.{name}", field=f"{self.field}.{name}")

    def part_under_same_text(self, name: str) -> ConfigPlace:
        """Return a ConfigPlace for the field `name` of this part of the config. Its path (`field`) ends with the name,
        but its text in errors (`where`) is that of this part."""
        return self._replace(field=f"{self.field}.{name}")


@dataclass(frozen=True, slots=True)
class Action:
    """The `then` of a policy rule: what to do after a task, such as `retry` or `jump`. `attempts` is the
    maximum number of times that the task is run, including the first time."""

    do: str = "continue"
    attempts: int = _ATTEMPTS
    backoff: str = "none"
    delay_s: float = _DELAY_S
    to: str | None = None
    set: Mapping[str, JsonValue] = dataclasses.field(default_factory=dict)
    field: str = ""
    """The path of the action in the policy, such as `rules[0].then`."""


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A rule of a policy: a condition and an action. A rule `else` has True as its `when`. If `action` is None, the
    default action is used."""

    when: JsonValue
    action: Action | None
    is_bare: bool = False
    """True for a rule with `then` but neither `when` nor `else`. Planes differ in whether such a rule applies
    (`ToolForm.bare_rule_holds`)."""


class StatusWord(str):
    """The value of `output.status` in a rule's condition. It prints as the word that the plane's original NoETL worker
    uses (such as `ok`). In a comparison it equals both the Rust and the Python worker's word for the status
    (protocol/tasks.md#policies)."""

    __slots__ = ("_words",)
    _words: frozenset[str]

    @classmethod
    def create(cls, status: ToolStatus, form: ToolForm) -> StatusWord:
        """Return the word for a tool's status. Success prints as `success` (Rust plane) or `ok` (Python plane), any
        other status as `error`."""
        words = {"ok", "success"} if status is ToolStatus.SUCCESS else {"error", status.value}
        word = cls(form.success_word if status is ToolStatus.SUCCESS else "error")
        word._words = frozenset(words)
        return word

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str.__str__(other) in self._words

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def task_outcome(result: ToolResult, attempt: int, form: ToolForm) -> dict[str, JsonValue]:
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
        "status": StatusWord.create(result.status, form),
        "ok": result.status is ToolStatus.SUCCESS,
        "data": result.data,
        "error": error,
        "http": http,
        "exit_code": result.exit_code,
        "meta": {"attempt": attempt, "duration_ms": result.duration_ms},
    }


def choose(
    rules: Sequence[PolicyRule], render: Callable[[JsonValue], JsonValue], warn: Callable[[str], None], form: ToolForm
) -> Action | None:
    """Return the action of the first rule whose condition is true. Return None if there is no such rule. `warn` is
    called with a text about each condition that cannot be evaluated."""
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
            return rule.action
    return None


def condition_holds(condition: JsonValue, render: Callable[[JsonValue], JsonValue]) -> bool:
    """Return True if a parsed condition is true. Raises TemplateError if the condition cannot be evaluated."""
    return condition if isinstance(condition, bool) else truthy(render(condition))


def jump_position(to: str | None, position: int, labels: Sequence[str]) -> int | None:
    """Return the index of the task to which a jump from `position` goes. Return None if no task has the name `to`. If
    several tasks have the name, the last task is the target."""
    if to is not None and to.lower() in _PREVIOUS:
        return position - 1 if position else None
    return max((index for index, label in enumerate(labels) if label == to), default=None)


def not_found(to: str | None, label: str, field: str = "") -> ConfigurationError:
    return ConfigurationError(f"jump target {to!r} of task {label!r} not found", field=field, tool=_TOOL)


def find_unknown_jumps(rules: Sequence[PolicyRule], position: int, labels: Sequence[str]) -> list[ConfigurationError]:
    """Return an error for each rule that jumps to an unknown task. The worker only logs these errors before the
    sequence starts, because such a rule fails its task only if its condition is true. The CLI command `check` reports
    these errors to the playbook's author."""
    jumps = [rule.action for rule in rules if rule.action is not None and rule.action.do == "jump"]
    wrong = [action for action in jumps if jump_position(action.to, position, labels) is None]
    return [not_found(action.to, labels[position], f"{action.field}.to") for action in wrong]


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
        problem = f"task {label!r}: policy must be an object with 'rules', or a list of rules"
        raise ConfigurationError(problem, tool=_TOOL)
    parsed = [_parse_rule(_place_of_rule(label, index), rule) for index, rule in enumerate(rules)]
    unmatched = policy.get("on_unmatched") if isinstance(policy, Mapping) else None
    if unmatched is not None:
        place = ConfigPlace(_TOOL, f"task {label!r}: on_unmatched", "on_unmatched")
        parsed.append(PolicyRule(True, _parse_action(place, unmatched)))
    return tuple(parsed)


def _place_of_rule(label: str, index: int) -> ConfigPlace:
    return ConfigPlace(_TOOL, f"task {label!r}: rule {index}", f"rules[{index}]")


def _parse_rule(where: ConfigPlace, rule: JsonValue) -> PolicyRule:
    if not isinstance(rule, Mapping):
        raise where.wrong(" must be an object with 'when' and 'then', or 'else'")
    _refuse_removed(where, rule)
    if "when" in rule:
        return PolicyRule(
            parse_condition(where, "when", rule["when"]),
            _parse_action(where.part_under_same_text("then"), rule.get("then")),
        )
    if "else" in rule:
        return PolicyRule(True, _parse_action(where.part_under_same_text("else.then"), _then_of_else(rule["else"])))
    if "then" not in rule:
        raise where.wrong(" has neither 'when' nor 'else'")
    return PolicyRule(True, _parse_action(where.part_under_same_text("then"), rule["then"]), is_bare=True)


def _then_of_else(otherwise: JsonValue) -> JsonValue:
    """Return the `then` inside an `else` such as `{then: {do: fail}}`. Any other field of the `else` is ignored, as
    NoETL's Rust and Python workers do."""
    return otherwise.get("then") if isinstance(otherwise, Mapping) else None


def _refuse_removed(where: ConfigPlace, given: Mapping[str, JsonValue]) -> None:
    """Raise ConfigurationError for a word of older playbooks (`set_vars`, `eval`, ...). Ignoring the word would
    silently lose the value that it sets."""
    removed = [word for word in _REMOVED if word in given]
    if removed:
        raise where.wrong(f": {removed[0]!r} is not supported; use 'when', 'then' and 'set'", removed[0])


def parse_condition(where: ConfigPlace, word: str, when: JsonValue) -> JsonValue:
    """Return a parsed condition for `condition_holds`: a template, or True or False for a word such as `yes`.

    Raises:
        ConfigurationError: the text is not a template and not a word for true or false.
    """
    if isinstance(when, str) and not has_template(when):
        if when.strip().lower() not in _WORDS:  # a text without template marks would always be true
            shown = fields.excerpt(when, 80)
            raise where.wrong(f": '{word}: {shown}' is no template; write it as {{{{ ... }}}}", word)
        return truthy(when)
    return when


def _parse_action(where: ConfigPlace, then: JsonValue) -> Action | None:
    if then is None:
        return None
    if isinstance(then, str):
        then = {"do": then}
    if not isinstance(then, Mapping):
        raise where.wrong(": 'then' must be an object like {do: retry, attempts: 3}")
    _refuse_removed(where, then)
    verb = str(then.get("do", "continue")).strip().lower()
    if verb not in VERBS:
        raise where.wrong(f": 'do: {verb}' is none of {', '.join(VERBS)}", "do")
    assignments = then.get("set") or {}
    if not isinstance(assignments, Mapping):
        raise where.wrong(": 'set' must be an object", "set")
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
        field=where.field,
    )


def _backoff(then: Mapping[str, JsonValue]) -> str:
    return str(then.get("backoff", "fixed" if "delay" in then else "none")).strip().lower()


def _count(value: JsonValue) -> int | None:
    """Return a number of attempts as int, also if it is given as text. Return None for any other value; the caller then
    uses the default (recorded: policy-numbers)."""
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _seconds(value: JsonValue) -> float | None:
    """Return a delay in seconds as float, also if it is given as text. Return None for any value that is not a finite
    number."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def unknown_words(label: str, policy: JsonValue) -> list[ConfigurationError]:
    """Return warnings about words in a policy that the worker does not read. Call `parse_policy` first: this function
    expects a valid policy."""
    if not isinstance(policy, Mapping):
        policy = {"rules": policy or []}
    found = _unknown(ConfigPlace(_TOOL, f"task {label!r}: policy", ""), policy, _POLICY_WORDS)
    for index, rule in enumerate(policy.get("rules") or []):
        where = _place_of_rule(label, index)
        found += _unknown(where, rule, _RULE_WORDS)
        if "else" in rule and "when" in rule:
            problem = ": 'else' beside 'when' is ignored; make it a rule of its own"
            found.append(where.wrong(problem, "else", reason="ignored"))
        elif "else" in rule and _then_of_else(rule["else"]) is None:
            problem = ": 'else' has no 'then': the default action is used; write else: {then: {do: ...}}"
            found.append(where.wrong(problem, "else", reason="ignored"))
        for part, action in (("then", rule.get("then")), ("else.then", _then_of_else(rule.get("else")))):
            place = where.part_under_same_text(part)
            found += _unknown(place, action, _ACTION_WORDS) + _replaced(place, action)
    return found


def _replaced(where: ConfigPlace, action: JsonValue) -> list[ConfigurationError]:
    """Return warnings about invalid values in an action, such as `delay: soon`. The parser replaces such a value by its
    default."""
    if not isinstance(action, Mapping):
        return []
    count, seconds, growth = (action.get(name) for name in ("attempts", "delay", "backoff"))
    found = {}
    if count is not None and _count(count) is None:
        found["attempts"] = f": 'attempts: {count}' is no whole number: {_ATTEMPTS} is used"
    if seconds is not None and _seconds(seconds) is None:
        found["delay"] = f": 'delay: {seconds}' is no number: {_DELAY_S:g} s is used"
    if growth is not None and _backoff(action) not in backoff.GROWTHS:
        found["backoff"] = f": 'backoff: {growth}' is none of {', '.join(backoff.GROWTHS)}: fixed is used"
    return [where.wrong(fields.excerpt(text, 300), name, reason="ignored") for name, text in found.items()]


def _unknown(where: ConfigPlace, given: JsonValue, known: frozenset[str]) -> list[ConfigurationError]:
    if not isinstance(given, Mapping):
        return []
    words = [word for word, value in given.items() if word not in known and value is not None]
    guesses = {word: fields.closest(word, sorted(known)) for word in words}
    return [
        where.wrong(f": {word!r} is ignored", word, suggestion=guess, reason="unknown")
        for word, guess in guesses.items()
    ]
