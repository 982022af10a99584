"""The search of a text for a regular expression, in linear time. The search follows all paths through the
instructions of the compiled pattern at once.

Rust counterpart: the `regex` crate's search. A state is the set of instructions that may come next after the characters
read so far. The search creates a state when it first reaches the state, in at most one pass over the instructions. Each
later visit costs one look-up. A pattern can have exponentially many states. So the automaton deletes all states
when they exceed a limit (`KEPT`). This bounds the memory; `STEPS` bounds the work of one search.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from noetl_worker.engine.pure import code_points
from noetl_worker.engine.pure.regex_code import Chars, Code, literal_head
from noetl_worker.errors import ConditionError

KEPT: Final = 4_096
"""Limit for the stored states, as the sum of their positions and transitions: about half a megabyte."""
STEPS: Final = 1_000_000
"""Largest number of instructions that one search may execute to create states, about 0.2 s. Ordinary patterns need
hundreds."""

_EDGE, _LINE, _WORD, _OTHER = range(4)
"""Kinds of neighbours of a position in the text: an end of the text, a line feed, a word character, another character.
"""


def _holding(before: int, after: int) -> frozenset[str]:
    """Return the assertions, such as `line start`, that hold between characters of the kinds `before` and `after`."""
    word_before, word_after = before == _WORD, after == _WORD
    holds = {
        "text start": before == _EDGE,
        "text end": after == _EDGE,
        "line start": before in (_EDGE, _LINE),
        "line end": after in (_EDGE, _LINE),
        "word edge": word_before != word_after,
        "no word edge": word_before == word_after,
        "word start": word_after and not word_before,
        "word end": word_before and not word_after,
    }
    return frozenset(name for name, is_so in holds.items() if is_so)


_ASSERTIONS: Final = {(before, after): _holding(before, after) for before in range(4) for after in range(4)}
_ALL_ASSERTIONS: Final = frozenset().union(*_ASSERTIONS.values())


class _AutomatonState:
    """A state of a search: the instructions of the compiled pattern that may come next after the text read so far. The
    object also stores which state follows after which next character."""

    __slots__ = ("after", "after_interval", "before", "places")

    def __init__(self, places: frozenset[int], before: int) -> None:
        self.places = places
        self.before = before
        self.after: dict[str, _AutomatonState] = {}
        self.after_interval: dict[int, _AutomatonState] = {}


class Automaton:
    """The automaton of a pattern, with its stored states. Threads may share it: a thread creates a state again if
    another thread has deleted it."""

    def __init__(self, code: Code, *, kept: int = KEPT) -> None:
        self._code, self._most = code, kept
        looks = {step for step in code if isinstance(step, str)}
        self._sees_lines = not looks.isdisjoint({"line start", "line end"})
        self._sees_words = any("word" in name for name in looks)
        self._word = Chars(code_points.perl("w") if self._sees_words else [])
        self._bounds: list[int] | None = None
        self._head = literal_head(code)
        self._known: dict[tuple[frozenset[int], int], _AutomatonState] = {}
        self._kept = 0
        self._found = _AutomatonState(frozenset(), _OTHER)
        self._lost = _AutomatonState(frozenset(), _OTHER)
        self._start = _AutomatonState(frozenset({0}), _EDGE)
        self._may_start_later = self._reached({0}, _ALL_ASSERTIONS - {"text start"})[0] != []

    def __len__(self) -> int:
        return len(self._code)

    def is_found_in(self, text: str) -> bool:
        """Return True if the pattern matches anywhere in a text.

        Raises:
            ConditionError: `regex_unsupported` if this search needs more than `STEPS` instructions to create states.
        """
        at = text.find(self._head)
        if at < 0 or len(self._head) == len(self._code):
            return at >= 0
        state, found, lost, steps = self._start, self._found, self._lost, STEPS
        for char in text[at:]:
            try:
                state = state.after[char]
            except KeyError:
                state, taken = self._follow(state, char)
                steps -= taken
                if steps < 0:
                    self._refuse()
            if state is found or state is lost:
                return state is found
        return self._reached(state.places, _ASSERTIONS[state.before, _EDGE])[0] is None

    def _follow(self, state: _AutomatonState, char: str) -> tuple[_AutomatonState, int]:
        """Find and store the state that follows `state` after a new character. Return the found state and the number of
        executed instructions."""
        interval = -1 if char.isascii() else self._interval(char)
        following, steps = state.after_interval.get(interval), 0
        if following is None:
            following, steps = self._made(state, char)
            if interval >= 0:
                state.after_interval[interval] = following
        self._kept += 1
        if self._kept > self._most:
            self._forget()
        state.after[char] = following
        return following, steps

    def _made(self, state: _AutomatonState, char: str) -> tuple[_AutomatonState, int]:
        beside = self._class_with(char)
        reached, steps = self._reached(state.places, _ASSERTIONS[state.before, beside])
        if reached is None:
            return self._found, steps
        code, fits = self._code, dict[Chars, bool]()
        places = {0} if self._may_start_later else set()
        for place in reached:
            chars = code[place]
            if isinstance(chars, Chars):
                if chars not in fits:
                    fits[chars] = char in chars
                if fits[chars]:
                    places.add(place + 1)
        if not places:
            return self._lost, steps
        key = (frozenset(places), beside)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _AutomatonState(*key)
            self._kept += len(places)
        return known, steps

    def _reached(self, places: Iterable[int], holding: frozenset[str]) -> tuple[list[int] | None, int]:
        """Return the positions of the `Chars` instructions that are reachable from `places` before a character is read.
        Also return the number of visited instructions. The search passes only those assertions that are in `holding`.

        Return None in place of the positions if the end of the code is reachable, because the pattern then matches.
        """
        code, end = self._code, len(self._code)
        waiting, seen = list(places), set(places)
        taking: list[int] = []
        while waiting:
            place = waiting.pop()
            if place == end:
                return None, len(seen)
            step = code[place]
            if isinstance(step, Chars):
                taking.append(place)
                continue
            for distance in step if isinstance(step, tuple) else (1,) if step in holding else ():
                if place + distance not in seen:
                    seen.add(place + distance)
                    waiting.append(place + distance)
        return taking, len(seen)

    def _class_with(self, char: str) -> int:
        if self._sees_lines and char == "\n":
            return _LINE
        return _WORD if self._sees_words and char in self._word else _OTHER

    def _interval(self, char: str) -> int:
        """Return the number of the interval of code points that contains `char`. All characters of an interval behave
        alike, since each set in the pattern contains all of them or none."""
        if self._bounds is None:
            sets = {step for step in self._code if isinstance(step, Chars)} | {self._word}
            self._bounds = sorted({bound for chars in sets for bound in chars.bounds})
        return bisect_right(self._bounds, ord(char))

    def _forget(self) -> None:
        for state in (self._start, *list(self._known.values())):
            state.after.clear()
            state.after_interval.clear()
        self._known.clear()
        self._kept = 0

    def _refuse(self) -> None:
        self._forget()  # the same search must be refused the next time too
        text = (
            f"Invalid regex: a search that takes over {STEPS:,} steps on this text needs the Rust engine: install it, "
        )
        text += "or write a simpler pattern"
        raise ConditionError("regex_unsupported", text)
