"""Users' regular expressions: checked for RE2's syntax and bounded, never run by Python's backtracking engine.

Envoy matches them with RE2 (linear time). What RE2 lacks is refused here with a reason: look-around, backreferences,
possessive quantifiers, over-large repeats. Source: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 1024
LARGEST_REPEAT: Final = 1000
_GROUP: Final = re.compile(r"\?(?::|P?<[A-Za-z_][A-Za-z0-9_]*>|[imsU-]+[:)])")
_REPEAT: Final = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_ESCAPES: Final = frozenset("abfnrtvAzBbdDsSwWQECpPx\\.+*?()|[]{}^$-/\"'`~!@#%&=:;,<> _0123456789")


def fault(pattern: str) -> str:
    """Why RE2 would refuse a pattern; empty when it would take it."""
    if len(pattern) > LONGEST:
        return f"a regular expression has at most {LONGEST} characters, this one {len(pattern)}"
    return _Scanner(pattern).scan()


class _Scanner:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.open = 0
        self.repeatable = False
        self.repeated = False

    def scan(self) -> str:
        while self.at < len(self.pattern):
            problem = self._step()
            if problem:
                return problem
        return "missing ): a group is not closed" if self.open else ""

    def _step(self) -> str:
        char = self.pattern[self.at]
        if char == "\\":
            return self._escape()
        if char == "[":
            return self._set()
        if char == "(":
            return self._group()
        if char == ")":
            self.open -= 1
            self.at += 1
            self.repeatable, self.repeated = True, False
            return "unexpected ): no group is open" if self.open < 0 else ""
        if char in "*+?":
            return self._quantifier(1)
        if char == "{":
            found = _REPEAT.match(self.pattern, self.at)
            if found:
                low, high = int(found[1]), int(found[2]) if found[2] else int(found[1])
                if max(low, high) > LARGEST_REPEAT or high < low:
                    return f"invalid repeat count {found[0]}"
                return self._quantifier(len(found[0]))
        self.at += 1
        self.repeatable, self.repeated = char not in "|^", False
        return ""

    def _quantifier(self, length: int) -> str:
        quantifier = self.pattern[self.at : self.at + length]
        if self.repeated and quantifier == "?":
            self.at += 1
            self.repeated = False
            self.repeatable = False
            return ""
        if not self.repeatable or self.repeated:
            return f"nothing to repeat before {quantifier}"
        self.at += length
        self.repeated = True
        return ""

    def _escape(self) -> str:
        if self.at + 1 >= len(self.pattern):
            return "trailing \\"
        char = self.pattern[self.at + 1]
        if char.isdigit() and char != "0":
            return f"backreference \\{char} is not supported"
        if char not in _ESCAPES:
            return f"unknown escape \\{char}"
        self.at += 2
        self.repeatable, self.repeated = char not in "bB", False
        return ""

    def _group(self) -> str:
        self.open += 1
        self.at += 1
        if self.pattern.startswith("?", self.at):
            found = _GROUP.match(self.pattern, self.at)
            if not found:
                return f"({self.pattern[self.at : self.at + 3]} is not supported: no look-around, no conditionals"
            self.at += len(found[0])
            if found[0].endswith(")"):
                self.open -= 1
        self.repeatable, self.repeated = False, False
        return ""

    def _set(self) -> str:
        at = self.at + 1
        if self.pattern.startswith("^", at):
            at += 1
        if self.pattern.startswith("]", at):
            at += 1
        while at < len(self.pattern) and self.pattern[at] != "]":
            named = self.pattern.startswith("[:", at) and ":]" in self.pattern[at:]
            at = (
                self.pattern.index(":]", at) + 2
                if named
                else at + (2 if self.pattern[at] == "\\" else 1)
            )
        if at >= len(self.pattern):
            return "missing ]: a character set is not closed"
        self.at = at + 1
        self.repeatable, self.repeated = True, False
        return ""
