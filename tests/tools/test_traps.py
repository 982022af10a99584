"""The 53 recorded traps of NoETL's tool layer: each with the tests that keep us out of it.

A row names tests that exist; one without is a decision, with its reason. Traps without a test elsewhere have one here.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from noetl_worker.command.failure import failure_of
from noetl_worker.errors import ToolError
from noetl_worker.testing import run_tool, tool_context
from noetl_worker.tools.noop import NoopTool
from noetl_worker.tools.registry import Registry

TESTS = Path(__file__).parents[1]
HERE = "tools/test_traps.py"

COVERED: dict[int, tuple[str, ...]] = {
    1: ("tools/test_shell.py::test_trap_1_default_shell_is_the_one_every_image_has",),
    2: ("tools/test_artifact.py::test_result_fetch_gives_the_json_as_it_is",),  # flight falls back to HTTP
    3: ("tools/test_template.py::test_expression_keeps_its_type_and_text_stays_text",),
    4: (
        "tools/test_nats_messages.py::test_limits_are_hard_whatever_is_asked_for",
        "tools/test_subscription.py::test_limits_are_hard_whatever_is_asked_for",
    ),
    5: ("tools/test_python_sources.py::test_trap_5_print_does_not_destroy_the_result",),
    6: (
        "tools/test_task_sequence.py::test_every_wire_form_runs_in_order",
        "integration/test_examples.py::test_task_sequence",
    ),
    7: ("tools/test_postgres.py::test_failed_statement_tells_what_the_server_said",),
    8: (
        "tools/test_registry.py::test_every_spelling_of_a_field_is_accepted",
        "tools/test_shell.py::test_trap_8_every_spelling_of_the_command",
        "tools/test_postgres.py::test_statements_that_no_splitter_gets_right",
    ),
    9: ("tools/test_http_config.py::test_trap_9_numbers_in_parameters_headers_and_forms",),
    10: (
        "tools/test_sql_split.py::test_statements_of",
        "tools/test_postgres.py::test_statements_that_no_splitter_gets_right",
    ),
    11: (
        "tools/test_secrets.py::test_the_next_task_of_a_sequence_has_the_value",
        "integration/test_examples.py::test_secrets",
    ),
    12: ("tools/test_python_sources.py::test_trap_12_nested_source_is_read_and_empty_code_refused",),
    13: ("tools/test_artifact.py::test_a_reference_is_found_wherever_playbooks_write_it",),
    14: (
        "tools/test_python_sources.py::test_trap_14_input_and_args_together_are_merged",
        "tools/test_registry.py::test_input_and_args_together_are_merged_and_input_wins",
    ),
    15: (
        "tools/test_playbook.py::test_result_of_the_child_is_waited_for",
        "integration/test_examples.py::test_playbook",
    ),
    16: ("tools/test_task_sequence.py::test_names_a_task_can_use",),
    17: (f"{HERE}::test_trap_17_boolean_condition_is_none_of_a_text_and_a_null_keeps_its_object",),
    18: ("tools/test_postgres.py::test_empty_template_value_is_an_error_with_its_place",),
    20: ("tools/test_snowflake.py::test_data_is_the_last_statements_in_one_session",),
    21: ("tools/test_transfer.py::test_aliases_of_both_ends_are_resolved",),
    22: ("tools/test_subscription.py::test_a_deferred_ack_is_given_by_a_later_call",),
    23: ("tools/test_http_config.py::test_trap_23_payload_is_under_both_names",),
    24: (
        "tools/test_policy.py::test_set_of_a_rule_is_applied_before_every_verb",
        "tools/test_task_sequence.py::test_what_cannot_work_is_refused_before_the_start",
    ),
    25: (f"{HERE}::test_trap_25_variables_are_not_copied_for_a_render",),
    26: ("tools/test_postgres.py::test_every_type_has_a_json_form_and_only_null_is_null",),
    27: (
        "tools/test_python_sources.py::test_trap_27_empty_input_does_not_hide_the_steps",
        "tools/test_playbook.py::test_payload_comes_from_payload_and_input",
    ),
    28: ("tools/test_nats_connections.py::test_commands_of_one_credential_share_a_connection",),
    29: ("tools/test_postgres_parameters.py::test_parameters_in_both_styles_take_the_columns_types",),
    30: ("tools/test_duckdb.py::test_missing_library_names_the_extra",),
    32: (
        "integration/test_bad_input.py::test_unknown_tool_kind_is_told_as_failed_with_the_kinds_there_are",
        "integration/test_bad_input.py::test_action_of_a_wrong_type_is_told_as_failed",
    ),
    33: ("tools/test_container_job.py::test_the_steps_input_is_not_taken_for_the_arguments",),
    34: ("unit/test_credentials.py::test_reference_is_replaced_at_any_depth",),
    35: (
        "tools/test_http_config.py::test_trap_35_credential_without_a_value_is_an_error_and_no_empty_bearer",
        "unit/test_credentials.py::test_reference_that_leads_to_nothing_fails_and_names_it",
    ),
    36: (
        "tools/test_http_config.py::test_trap_36_reason_of_a_failed_connection_is_kept",
        f"{HERE}::test_trap_36_chain_of_causes_is_told",
    ),
    37: ("tools/test_mcp.py::test_a_tool_that_reports_an_error_is_a_failure",),
    38: (
        "tools/test_http_config.py::test_trap_38_text_that_looks_like_a_number_stays_text",
        "tools/test_template.py::test_text_without_marks_is_untouched",
    ),
    39: (
        "tools/test_registry.py::test_fields_are_rendered_once_and_raw_ones_never",
        "tools/test_task_sequence.py::test_input_is_rendered_before_any_of_its_own_names_count",
    ),
    40: ("tools/test_template.py::test_expression_keeps_its_type_and_text_stays_text",),
    41: ("tools/test_template.py::test_expression_keeps_its_type_and_text_stays_text",),
    42: ("tools/test_template.py::test_truthy", "tools/test_template.py::test_falsy"),
    43: ("tools/test_container_job.py::test_a_list_valued_command_of_numbers_is_text",),
    44: ("tools/test_task_sequence.py::test_planes_forms_of_a_success",),
    45: (
        "tools/test_transfer.py::test_replace_empties_the_table_even_when_there_are_no_new_rows",
        "tools/test_transfer.py::test_upsert_replaces_rows_with_the_key_and_the_later_of_two_wins",
        "tools/test_transfer_failures.py::test_broken_config_is_told_exactly",
    ),
    46: ("tools/test_postgres_pool.py::test_schema_of_one_command_is_not_the_next_ones",),
    47: (
        "tools/test_http_config.py::test_trap_47_data_with_braces_is_no_template",
        "tools/test_task_sequence.py::test_values_that_look_like_templates_stay_data",
    ),
    48: (
        "tools/test_sequence_rules.py::test_failures_of_every_channel_reach_the_rules",
        "tools/test_policy.py::test_timeout_of_one_task_is_a_failure_for_its_rules_and_for_the_default",
    ),
    49: (
        "tools/test_sequence_rules.py::test_backoff",
        "tools/test_sequence_rules.py::test_jump_repeats_from_there_and_a_success_has_its_tries_again",
    ),
    50: (
        "tools/test_nats.py::test_the_tasks_label_is_not_taken_for_the_objects_name",
        "tools/test_mcp.py::test_the_workers_settings_say_where_a_server_is",
        "tools/test_secrets.py::test_a_google_secret_is_fetched_with_the_credential",
    ),
    51: (
        "tools/test_template.py::test_expression_keeps_its_type_and_text_stays_text",
        "tools/test_template.py::test_an_expression_that_cannot_be_evaluated_is_an_error",
    ),
    52: (
        "tools/test_http_config.py::test_trap_52_hosts_named_local_are_asked_and_not_mocked",
        "tools/test_http_exchange.py::test_every_timeout_ends_the_call",
    ),
    53: ("tools/test_shell.py::test_trap_53_command_that_fails_is_no_success",),
}

NOT_COVERED: dict[int, str] = {
    19: "a build trap of one crate: Cargo.lock is committed and used by CI",
    31: "the provider kind is not run here (tools/test_kinds_elsewhere.py)",
}


@functools.cache
def functions(file: str) -> frozenset[str]:
    whole = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in whole.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def rows() -> Iterator[tuple[int, str]]:
    for number, names in COVERED.items():
        for name in names:
            yield number, name


def test_every_trap_has_its_tests_or_a_reason() -> None:
    assert sorted([*COVERED, *NOT_COVERED]) == list(range(1, 54))


@pytest.mark.parametrize(("number", "name"), list(rows()))
def test_the_named_test_is_there(number: int, name: str) -> None:
    file, _, function = name.partition("::")
    assert function in functions(file), f"trap {number} has lost its test"


# ── traps without a test elsewhere ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("condition", "result"), [(True, "stopped"), (False, "went on")])
def test_trap_17_boolean_condition_is_none_of_a_text_and_a_null_keeps_its_object(condition: bool, result: str) -> None:
    rule = {"when": condition, "then": {"do": "break", "set": {"ctx.seen": {"a": None, "b": "{{ 1 + 1 }}"}}}}
    tasks = [
        {"name": "first", "kind": "noop", "result": "stopped", "spec": {"policy": {"rules": [rule]}}},
        {"name": "second", "kind": "noop", "result": "went on"},
    ]
    data = run_tool("task_sequence", {"tasks": tasks}).data
    assert data["_prev"] == result
    assert data["updates"] == ({"ctx.seen": {"a": None, "b": 2}} if condition else {})


class Large(dict[str, Any]):
    """Variables of many megabytes: a copy of them is what must not happen."""

    def __copy__(self) -> NoReturn:
        raise AssertionError("copied")

    def __deepcopy__(self, memo: Any) -> NoReturn:
        raise AssertionError("copied deeply")

    def __iter__(self) -> NoReturn:
        raise AssertionError("walked through")

    def keys(self) -> NoReturn:
        raise AssertionError("walked through")

    def items(self) -> NoReturn:
        raise AssertionError("walked through")

    def values(self) -> NoReturn:
        raise AssertionError("walked through")


def test_trap_25_variables_are_not_copied_for_a_render() -> None:
    registry = Registry([NoopTool()], plugins=False)
    context = tool_context(registry=registry, variables={"big": Large(x=7)})
    config = registry.prepare("noop", {"result": ["{{ big.x }}", "x is {{ big.x }}"] * 50}, context).config
    assert config.result == [7, "x is 7"] * 50


def test_trap_36_chain_of_causes_is_told() -> None:
    try:
        try:
            raise ConnectionResetError("peer went away")
        except ConnectionResetError as cause:
            raise ToolError("the rows cannot be read", kind="connection", retryable=True) from cause
    except ToolError as error:
        told = failure_of(error)
    assert told.error is not None
    assert told.error.message == "the rows cannot be read; caused by ConnectionResetError: peer went away"
    assert (told.error.kind, told.error.retryable) == ("connection", True)
