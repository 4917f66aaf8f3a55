"""Which programs import setproctitle, and what they do with it on macOS."""

from __future__ import annotations

import contextlib
import re
from typing import NamedTuple

CALLS = "calls it on macOS"
GUARDED = "does not use setproctitle on macOS"
OWN_COPY = "has a setproctitle of its own, out of the shim's reach: upgrade to ray 2.56 or later"
GONE = ""  # does not import it at all


class Caller(NamedTuple):
    name: str
    since: str  # the version from which on it does that
    what: str


# A slow test reads the newest release of each of them from the index.
PLAIN = (
    "celery circus cotyledon distributed django-q2 faust faust-streaming granian neutron odoo parsl pgcli "
    "pytest-xdist rq salt sglang skypilot vllm vpn-slice xinference xonsh"
)
# fmt: off
CALLERS = (
    *(Caller(name, "0", CALLS) for name in PLAIN.split()),
    Caller("apache-airflow", "0", CALLS), Caller("apache-airflow", "3", GONE),  # apache-airflow-core has the code
    Caller("apache-airflow-core", "0", CALLS), Caller("apache-airflow-core", "3.1", GUARDED),
    Caller("apache-airflow-providers-celery", "0", CALLS), Caller("apache-airflow-providers-celery", "3.13", GUARDED),
    Caller("apache-airflow-task-sdk", "0", GUARDED),
    Caller("gunicorn", "0", CALLS), Caller("gunicorn", "25", GUARDED),
    Caller("mutmut", "3", CALLS), Caller("mutmut", "3.6", GUARDED),
    Caller("ray", "0", CALLS), Caller("ray", "2.48", OWN_COPY), Caller("ray", "2.56", GONE),
)
# fmt: on
FIELD = re.compile(r"(?im)^(name|version):[ \t]*(\S+)[ \t\r]*$")
# On macOS, and without an extra.
REQUIRES = re.compile(
    r"(?im)^Requires-Dist:\s*setproctitle\s*(?![\w.-])(?!.*\bextra\s*==|.*(==\s*['\"](linux|win)|!=\s*['\"]darwin))"
)


def what(name: str, version: str, requires: bool) -> str:
    """Return what a program does, by the table, or else as its metadata requires setproctitle or not."""

    def numbers(version: str) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", version)[:4]]

    rows = [row for row in CALLERS if row.name == name]
    fitting = [row.what for row in rows if numbers(version) >= numbers(row.since)]
    return fitting[-1] if fitting else CALLS if requires and not rows else GONE


def callers() -> dict[str, str]:
    """Return "name version" of the installed programs that import setproctitle, and what they do."""
    from importlib_metadata import Distribution

    found: dict[str, tuple[str, str]] = {}
    for dist in Distribution.discover():
        with contextlib.suppress(Exception):  # Other people's metadata may raise anything.
            # Not dist.name and the like, which parse all of the file as an e-mail.
            head, _, _ = (dist.read_text("METADATA") or dist.read_text("PKG-INFO") or "").partition(
                "\n\n"
            )
            fields = {key.lower(): value for key, value in reversed(FIELD.findall(head))}
            name, version = re.sub(r"[-_.]+", "-", fields["name"]).lower(), fields["version"]
            # The first one found on sys.path is the one that is imported.
            found.setdefault(
                name, (f"{name} {version}", what(name, version, bool(REQUIRES.search(head))))
            )
    return dict(sorted((program, does) for program, does in found.values() if does != GONE))
