"""The list of attacks in docs/attacks.md, from the tests' own words: `python tests/security/attack_table.py`."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

DOCUMENT = Path(__file__, "../../../docs/attacks.md").resolve()
BEGIN, END = "<!-- attacks: begin -->\n", "<!-- attacks: end -->\n"
NO_ATTACK = "(no attack)"
"""How the docstring of a test begins that shows what must go on working, or what a setting does."""
AS_NOBODY = (
    "test_descriptors.py",
    "test_files.py",
    "test_names_of_a_database.py",
    "test_outbox_owner.py",
    "test_own_files.py",
    "test_pipes.py",
    "test_resource_shortage.py",
    "test_shortage_of_each_kind.py",
    "test_template_process.py",
)
"""Files whose tests are all run once more as nobody (test_as_nobody.py): signals, files, processes of a user."""
BOTH = {"user", "worker"}
"""Parameters of a test by which it runs as root and as nobody itself."""
INTRODUCTION = """
Where root runs the suite, *root, nobody* are tried as both users, as far as `setpriv` is there. *root* or *nobody* is
what only that user can do; for *any* the user plays no part.
"""
ALONE = {
    "test_fork_bomb_ends_at_the_limit_and_the_next_command_runs": "root",  # who else may make a cgroup?
    "test_commands_are_in_one_cgroup_of_their_worker": "root",
    "test_root_can_do_all_of_it_without_isolation": "root",
    "test_whole_outbox_of_another_user_is_not_taken_over_by_root": "root",
    "test_refused_fork_is_a_shortage": "nobody",  # no count of processes binds root
    "test_kind_is_returned_where_the_user_has_no_process_left": "nobody",
    "test_large_answer_to_a_request_that_was_sent_is_read": "nobody",
    "test_large_result_is_reported": "nobody",
    "test_scratch_directory_is_removed": "nobody",
    "test_event_is_sent_again_where_the_name_of_the_plane_cannot_be_looked_up": "nobody",
    "test_command_that_is_refused_a_process_or_a_thread_is_returned_and_runs_once": "nobody",
}


def users_of(file: str, test: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Under which users of the machine the test runs where root runs the suite."""
    if test.name in ALONE:
        return ALONE[test.name]
    if file in AS_NOBODY:
        return "root, nobody"
    for decorator in test.decorator_list:
        first = decorator.args[0] if isinstance(decorator, ast.Call) and decorator.args else None
        if isinstance(first, ast.Constant) and first.value in BOTH:
            return "root, nobody"
    return "any"


def rows_of(file: Path) -> list[str]:
    """The attacks of one file; none if it has none."""
    module = ast.parse(file.read_text(encoding="utf-8"))
    attacks = []
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            said = " ".join((ast.get_docstring(node) or NO_ATTACK).split("\n\n")[0].split())
            if not said.startswith(NO_ATTACK):
                attacks.append((said, users_of(file.name, node)))
    if not attacks:
        return []
    title = (ast.get_docstring(module) or file.stem).splitlines()[0]
    users = {users for _, users in attacks}
    by_all = f"; {users.pop()}" if len(users) == 1 else ""
    rows = ["", *wrapped(f"**{title}** (`tests/security/{file.name}`{by_all})", ""), ""]
    for said, users_of_one in attacks:
        rows += wrapped(f"- {said}" if by_all else f"- {said} ({users_of_one})", "  ")
    return rows


def wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def table() -> str:
    files = sorted(Path(__file__).parent.glob("test_*.py"))
    return INTRODUCTION + "\n".join(row for file in files for row in rows_of(file)) + "\n"


def current() -> str:
    text = DOCUMENT.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


if __name__ == "__main__":
    whole = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(whole.replace(BEGIN + current(), BEGIN + table()), encoding="utf-8")
