"""Analysis of a `python` step's code, to find its result: a top-level `return`, the variable `result`, or the function
`main`.

The template process (`python_template.py`), from which commands are forked, reads this file by path. So this file
imports only the standard library.
"""

from __future__ import annotations

import ast
import copy
import symtable
import types
from typing import Any

FILE_NAME = "<python step>"


def named(source: str) -> symtable.SymbolTable:
    return symtable.symtable(source, FILE_NAME, "exec")


def assigns_result(table: symtable.SymbolTable) -> bool:
    """Return True if code assigns the global `result`, at the top or in a function."""
    if "result" in table.get_identifiers():
        symbol = table.lookup("result")
        if symbol.is_assigned() and (table.get_type() == "module" or symbol.is_global()):
            return True
    return any(map(assigns_result, table.get_children()))


def as_given(request: dict[str, Any]) -> tuple[Any, Any]:
    """Return the input named `result` and a copy of this input. A later comparison with the copy shows whether the code
    has changed the input."""
    injected = request["input"].get("result")
    return injected, copy.deepcopy(injected)


def result_of(source: str, scope: dict[str, Any], given: tuple[Any, Any]) -> tuple[bool, Any]:
    """Return (True if the code has a result, the value of the variable `result`).

    A command's input may also be named `result`. This input is a result only if the code changes it or assigns
    `result`, even with the same value.
    """
    value = scope.get("result")
    if value is None:
        return False, None
    injected, copy = given
    if value is not injected or has_changed(value, copy):
        return True, value
    return assigns_result(named(source)), value


def has_changed(value: Any, copy: Any) -> bool:
    try:
        return bool(value != copy)
    except Exception:  # the value now contains an object that cannot be compared
        return True


def calls_of_main(source: str) -> set[str]:
    """Return the places where the code calls its own `main`: "guard" (inside `if __name__ == "__main__":`) and "top"
    (elsewhere at top level)."""
    if "main" not in source:
        return set()
    try:
        tree = ast.parse(source, FILE_NAME)
    except SyntaxError:  # reported when it is compiled
        return set()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    if not any(isinstance(node, functions) and node.name == "main" for node in tree.body):
        return set()
    callers = [node for node in tree.body if not isinstance(node, functions) and any(map(is_main, ast.walk(node)))]
    return {"guard" if isinstance(node, ast.If) and "__main__" in ast.dump(node.test) else "top" for node in callers}


def is_main(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "main"


def compile_source(source: str) -> tuple[types.CodeType, bool]:
    """Compile the code of a step, and return (code object, True if wrapped). Code with a top-level `return` is wrapped
    in a function."""
    try:
        return compile(source, FILE_NAME, "exec"), False
    except SyntaxError as error:
        if "'return' outside function" not in str(error):
            raise
    tree = ast.parse(source, FILE_NAME)
    future = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    body = [node for node in tree.body if node not in future]
    names = top_level_names(source)
    if names:  # names stay global, so that functions of the text see each other and `result`
        body.insert(0, ast.Global(names=names))
    wrapped = ast.parse("def __noetl_body__(): pass")
    for function in wrapped.body:
        if isinstance(function, ast.FunctionDef):
            function.body = body
    wrapped.body[:0] = future
    ast.fix_missing_locations(wrapped)
    return compile(wrapped, FILE_NAME, "exec"), True


def top_level_names(source: str) -> list[str]:
    table = named(source)
    return sorted(s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace())
