"""Which lines of a log tell of one and the same death."""

from __future__ import annotations

from collections import OrderedDict, deque

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
        self.known: OrderedDict[bytes, tuple[signs.Span, int | None]] = OrderedDict()
        self.told: dict[tuple[str, int], int] = {}
        self.families: dict[str, int] = {}
        self.deaths = 0
        # Of deaths without a cause: program and side.
        self.unexplained: deque[tuple[str, str]] = deque(maxlen=1000)

    def is_new(self, number: int, name: bytes, time: signs.Span) -> bool:
        """Return whether a sentence (its number, the process or job it names, its time) tells of another death."""
        if time not in (self.last, signs.NEVER):
            if signs.apart(time, self.last) > BURST:
                self.begin()
            self.last = time
        sentence = signs.SENTENCES[number]
        if name:
            seen, by = self.known.pop(name, (signs.NEVER, None))
            self.known[name] = self.last, number
            if by is not None and (by != number or sentence.repeated or signs.apart(self.last, seen) <= 2):
                return False
            if len(self.known) > 10_000:
                self.known.popitem(last=False)
            number = -1 if name.isdigit() else -2  # One process, one job: the wording does not matter.
        key = sentence.family, number
        self.told[key] = self.told.get(key, 0) + 1
        self.families[sentence.family] = max(self.families.get(sentence.family, 0), self.told[key])
        dumps = self.families.get(signs.DUMP, 0)
        deaths = max(dumps, sum(self.families.values()) - dumps)
        new, self.deaths = deaths > self.deaths, deaths
        return new
