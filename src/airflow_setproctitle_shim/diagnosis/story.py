"""Which lines of a log tell of one and the same death."""

from __future__ import annotations

from collections import deque

from . import signs

BURST = 60.0  # seconds between two lines that do not tell of one death


class Story:
    """The deaths that a program's lines in one file tell of, each counted once.

    Lines tell of one death if they name the same process or job. Of those that name none, the first of
    one wording and the first of another wording of the same family tell of the first death, and so on;
    a dump goes with any family. What is more than a minute later is another story (`BURST`).
    """

    def __init__(self) -> None:
        self.last = signs.NEVER
        self.begin()

    def begin(self) -> None:
        self.known: dict[bytes, tuple[signs.Span, int]] = {}
        self.before: dict[bytes, tuple[signs.Span, int]] = {}  # what was known before `known` was full
        self.told: dict[tuple[str, int], int] = {}
        self.families: dict[str, int] = {}
        self.dumps = self.others = 0
        # Of deaths without a cause: program and side.
        self.unexplained: deque[tuple[str, str]] = deque(maxlen=1000)

    def is_new(self, number: int, name: bytes, time: signs.Span) -> bool:
        """Return whether a sentence (its number, the process or job it names, its time) tells of another death."""
        if time not in (self.last, signs.NEVER):
            if signs.apart(time, self.last) > BURST:
                self.begin()
            self.last = time
        family = signs.SENTENCES[number].family
        if name:
            seen = self.known.get(name) or self.before.get(name)
            self.known[name] = self.last, number
            repeated = signs.SENTENCES[number].repeated
            if seen and (seen[1] != number or repeated or signs.apart(self.last, seen[0]) <= 2):
                return False
            if len(self.known) > 10_000:
                self.known, self.before = {}, self.known
            number = -1 if name.isdigit() else -2  # One process, one job: the wording does not matter.
        told = self.told[family, number] = self.told.get((family, number), 0) + 1
        if told <= self.families.get(family, 0):
            return False
        self.families[family] = told
        self.dumps, self.others = self.dumps + (family == signs.DUMP), self.others + (family != signs.DUMP)
        return self.dumps > self.others if family == signs.DUMP else self.others > self.dumps
