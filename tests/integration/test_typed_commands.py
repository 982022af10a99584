"""A command line run in the process of the tests has its own output, and no other thread's."""

from __future__ import annotations

import sys
import threading

from integration.processes import typed


def test_line_of_another_thread_is_no_part_of_what_a_command_wrote() -> None:
    is_written, ends = threading.Event(), threading.Event()

    def write_lines() -> None:
        while not ends.is_set():
            print("a late line of a worker", file=sys.stderr)
            is_written.set()

    other = threading.Thread(target=write_lines)
    other.start()
    try:
        assert is_written.wait(10)
        ended = typed("no-such-command")
    finally:
        ends.set()
        other.join()
    assert ended.code == 2
    assert "no-such-command" in ended.err
    assert "a late line" not in ended.err
