"""The sentences that tell of a death and the frames that tell its cause; the tables lie beside this module."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple


def _table(name: str, columns: int) -> Iterator[list[str]]:
    for line in (files(__package__) / name).read_text("ascii").splitlines():
        if not line.startswith("#"):
            yield [column.strip() for column in line.split("::", columns - 1)]


class Cause(NamedTuple):
    """Something that kills a process, and what helps against it; causes.txt says what is what."""

    name: str
    remedy: str
    source: str
    native: str
    python: str


SETPROCTITLE, OBJECTIVE_C, UNKNOWN = "setproctitle", "Objective-C +initialize", "unknown"
*_CAUSES, CALLERS = (Cause(*row) for row in _table("causes.txt", 5))
CAUSES = {cause.name: cause for cause in _CAUSES}


def cause_of_crash(text: str) -> Cause:
    """Return the cause that a crash report's lines "image symbol" and the system's notes tell."""
    return next(cause for cause in _CAUSES if re.search(cause.native, text))


def cause_of_dump(frames: list[str]) -> str:
    """Return the name of the cause that a dump's frames ("file function", innermost first) tell."""
    if frames and re.search(CALLERS.python, frames[0]):
        return SETPROCTITLE
    return next((its.name for frame in frames for its in _CAUSES if re.search(its.python, frame)), UNKNOWN)


class Sentence(NamedTuple):
    """One way to tell of a death; sentences.txt says what is what."""

    number: int
    family: str
    words: bytes
    pattern: re.Pattern[bytes]


DUMP, GENERAL, REFUSED, DOCKER, OBJC = "dump", "general", "refused", "docker", "objc"
PARTS = {
    "{START}": r'(?:^|[]|>:}+-] |\dZ? |": ?"|\\n)\s{0,40}',
    "{FAULT}": r"egmentation fault(?:: 11)?(?:\s{0,40}\(core dumped\))?",
    "{CODE}": r"(?:<?Negsignal\.SIGSEGV|-SIGSEGV|-11|139)\b(?!\.?\d)",
}


def _sentences() -> Iterator[Sentence]:
    for number, (family, words, pattern) in enumerate(_table("sentences.txt", 3)):
        for name, part in PARTS.items():
            pattern = pattern.replace(name, part)
        yield Sentence(number, family, words.encode(), re.compile(pattern.encode()))


SENTENCES = tuple(_sentences())
# General words may be a rule, a guess, a denial or a memory instead: then these stand beside them.
NO_NEWS = re.compile(
    rb"(?i)^\s*(?:#|//)|\b(?:if|when|whenever|where|may|might|can|could|would|should|will|not|never|no|without|unless"
    rb"|whether|prevent\w*|avoid\w*|fix(?:e[sd])?|example|earlier|previous(?:ly)?|former(?:ly)?|used to|always"
    rb"|usually|means?|indicates?|0 (?:workers|processes|children|tasks))\b(?:[^.;!?:]|:(?! ))*$"
)
EXPLAINED = re.compile(rb"[^.;]{0,12}?\b(?:means?|indicates?|is|are|or|refers)\b")
PID = re.compile(rb"(?i)\bpid[\"']?\s{0,9}(?:[:=]\s{0,9})?(?P<pid>\d+)\b")
NEAR = 300  # bytes before and after a sentence

# Each line that has one of the sentences has one of these, and hardly any other line has. Each begins with
# fixed bytes, which `re` finds as fast as `find` does.
NEEDLES = [
    re.compile(needle + rb".*")
    for needle in (
        rb"SEGV",
        rb"gmentation ",
        rb"gnal 11",
        rb"-11(?<!\d-11)(?![-\d])",
        rb"139\b(?<![\w.-]139)",
        rb"fork\(\) was",
        rb"Unauthorized",
        rb"Forbidden",
        rb"Invalid auth token",
        rb"waitpid",
    )
]


def lines(block: bytes) -> list[int]:
    """Return where the lines of a block begin that may hold a sentence."""
    return sorted({block.rfind(b"\n", 0, at.start()) + 1 for its in NEEDLES for at in its.finditer(block)})


class Told(NamedTuple):
    """What a line tells: by which sentence, the process or job it names, and the program that it names."""

    sentence: Sentence
    name: bytes
    who: bytes


def told(line: bytes) -> list[Told]:
    """Return the deaths or refusals that a line tells of, by the first sentence that it has."""
    for sentence in SENTENCES:
        if sentence.words in line and (found := [*sentence.pattern.finditer(line)]):
            return [_told(sentence, one) for one in found if sentence.family != GENERAL or _is_news(one)]
    return []


def _is_news(found: re.Match[bytes]) -> bool:
    rule = NO_NEWS.search(found.string, max(0, found.start() - NEAR // 2), found.start())
    return not (rule or EXPLAINED.match(found.string, found.end()))


def _told(sentence: Sentence, found: re.Match[bytes]) -> Told:
    groups = found.groupdict(b"")
    near = PID.search(found.string, max(0, found.start() - NEAR), found.end() + NEAR)
    pid = groups.get("pid") or (near["pid"] if near else b"")
    job = groups.get("job")
    return Told(sentence, b"job " + job if job else pid, groups.get("who", b""))
