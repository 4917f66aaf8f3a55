"""`doctor` reads whatever stands one below the other in an input as if each stood alone.

Pieces are mixed at random: crash reports in every form, dumps, lines, what looks like them and is none; with
log lines between them, and across the borders of the blocks that are read. DOCTOR_MIXES=2000 mixes more of them;
DOCTOR_SEED=7 begins elsewhere.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from test_doctor import BEHIND, CORE, DATA, DUMPS, FORMS, OBJC, REPORTS, dump, quoted

from airflow_setproctitle_shim.diagnosis import inputs, words
from airflow_setproctitle_shim.diagnosis.pieces import Reader

MIXES = int(os.environ.get("DOCTOR_MIXES", "60"))
SEED = int(os.environ.get("DOCTOR_SEED", "1"))
TEXTS = {"old text", "new text", "in Markdown", "with a web page's blanks", "in an e-mail"}
LOGS = (
    "2026-11-27T10:00:00Z all is well\n",
    '{"event": "all is well", "level": "info"}\n',
    "web.1 | Thread 12 waits for a Process: none\n",
    "\n",
)


class Piece(NamedTuple):
    name: str
    text: str
    counts: dict[str, int]
    has_gaps: bool = False  # Other programs' lines may stand between its own.
    is_file: bool = False  # Its last line needs no end.


def reports() -> list[Piece]:
    return [
        Piece(
            f"{name}, {form}",
            make(DATA / f"crash-reports/{name}.ips"),
            {cause: 1},
            has_gaps=form in TEXTS,
            is_file=form in ("file", "body of a file", "of PyPy"),
        )
        for name, cause in REPORTS.items()
        for form, make in FORMS.items()
    ]


def cut_reports() -> list[Piece]:
    """Files that break off in a line, or behind one: what is there tells the cause."""
    pieces = []
    for name in ("python3.12-kalite2844", "python3.12-rubypg631-psycopg-gss-segv"):
        whole = (DATA / f"crash-reports/{name}.ips").read_text("utf-8")
        for end in (whole.index('"usedImages"'), whole.index('"usedImages"') + 4):
            pieces.append(Piece(f"cut {name} at {end}", whole[:end], {REPORTS[name]: 1}))
    return pieces


def dump_pieces() -> list[Piece]:
    pieces = [
        Piece(
            f"dump {behind}: {cause}",
            "\n".join(map(BEHIND[behind], dump(frames).splitlines())),
            {cause: 1},
            has_gaps=True,
        )
        for behind in BEHIND
        for cause, frames in DUMPS
    ]
    for cause, frames in DUMPS:
        pieces.append(Piece(f"one line: {cause}", json.dumps({"event": dump(frames)}), {cause: 1}))
        timeout = dump(frames).replace(
            "Fatal Python error: Segmentation fault", "Timeout (0:00:05)!"
        )
        pieces.append(Piece(f"timeout: {cause}", timeout.replace("Current thread", "Thread"), {}))
    lldb = (DATA / "lines/lldb.log").read_text("utf-8")
    return [*pieces, Piece("lldb", lldb, {"objective-c": 1, "_scproxy": 2, "unknown": 1})]


def lines() -> list[Piece]:
    pieces = [Piece(word.example, word.example, {word.cause: 1}) for word in words.WORDS]
    # Alone on a line these begin a report; what is sought above others' lines may stand in other pieces.
    pieces += [Piece("objc", OBJC, {"objective-c": 1}), Piece("core", CORE, {"corefoundation": 1})]
    stack = "0   CoreFoundation   0x00007ff81b2b5e9b __exceptionPreprocess + 242\n"
    stack += "1   libobjc.A.dylib   0x00007ff81ae1c9e4 objc_exception_throw + 48"
    pieces += [
        Piece("an NSException", stack, {}),
        Piece("no report", "Process: scheduler [4242]", {}),
    ]
    return [*pieces, Piece("pretty JSON", '{\n  "code": -1\n}', {})]


def others() -> list[Piece]:
    ours = (DATA / "crash-reports/python3.12-kalite2844.ips").read_text("utf-8")
    codex = DATA / "cases/codex43591"
    return [
        Piece("another program's file", (codex / "report.ips").read_text("utf-8"), {}),
        Piece("another program's text", (codex / "pasted.txt").read_text("utf-8"), {}),
        Piece("another file", ours.replace("ython", "uby").replace("_scproxy", "x"), {}),
    ]


PIECES = [reports(), cut_reports(), dump_pieces(), lines(), others()]


def torn(piece: Piece, chance: random.Random) -> Piece:
    """A piece with lines of others between its own, one of which names a death."""
    lines = piece.text.splitlines(keepends=True)
    for _ in range(3):
        lines.insert(chance.randint(1, len(lines)), chance.choice(LOGS))
    lines.insert(chance.randint(1, len(lines)), "2026-11-27 Worker (pid:1) was sent SIGKILL!\n")
    counts = Counter(piece.counts)
    counts["killed"] += 1
    return Piece(f"torn {piece.name}", "".join(lines), counts)


def mixed(chance: random.Random) -> list[Piece]:
    pieces = []
    for _ in range(chance.randint(2, 6)):
        piece = chance.choice(chance.choice(PIECES))
        end = "" if piece.is_file and chance.random() < 0.3 else "\n"
        piece = piece._replace(text=piece.text.rstrip("\n") + end)
        pieces.append(torn(piece, chance) if piece.has_gaps and chance.random() < 0.3 else piece)
        log = chance.choice(LOGS) * chance.choice([0, 0, 1, 3, 40, 300])
        pieces.append(Piece("log", log, {}))
    return pieces


# How all of it may have been copied.
COPIES: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "with carriage returns": lambda text: text.replace("\n", "\r\n"),
    "in an e-mail": lambda text: quoted(text, "> "),
    "in Markdown": lambda text: f"```\n{text}```\n",
    "behind a program's name": lambda text: quoted(text, "12:31:40 web.1  | "),
    "behind a time": lambda text: quoted(text, "2026-11-27T12:31:40.123456789Z "),
    "in a comment": lambda text: quoted(text, "# "),
    "in a box": lambda text: quoted(text, "│ "),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_report_a_dump_and_a_line_are_read_however_they_were_copied(
    copy: str, tmp_path: Path
) -> None:
    text = FORMS["new text"](DATA / "crash-reports/python3.12-kalite2844.ips").lstrip("\n")
    cause, frames = DUMPS[0]
    text += f"{dump(frames)}\nWorker (pid:1) was sent SIGKILL!\n"
    (tmp_path / "a.log").write_bytes(COPIES[copy](text).encode())
    found = Counter[str]()
    for sign in Reader(str(tmp_path / "a.log")).signs():
        found[sign.cause] += sign.number
    assert found == {"_scproxy": 1, cause: 1, "killed": 1}


@pytest.mark.parametrize("number", range(SEED, SEED + 12))
def test_what_stands_one_below_the_other_is_read_as_if_each_stood_alone(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(number)
    file = tmp_path / "mixed.log"
    for _ in range(max(1, MIXES // 12)):
        monkeypatch.setattr(inputs, "BLOCK", chance.choice([2**10, 2**12, 2**14, 2**20]))
        pieces, copy = mixed(chance), chance.choice([*COPIES])
        text = "".join(piece.text for piece in pieces)
        file.write_bytes(COPIES[copy](text).encode())
        expected: Counter[str] = Counter()
        for piece in pieces:
            expected.update(piece.counts)
        found: Counter[str] = Counter()
        for sign in Reader(str(file)).signs():
            found[sign.cause] += sign.number

        assert found == expected, [copy, *(piece.name for piece in pieces)]
