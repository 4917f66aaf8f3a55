"""Who imports setproctitle: a table of known programs, and what the metadata of installed ones requires."""

from __future__ import annotations

import contextlib
import re
from typing import NamedTuple

CALLS = "calls it on macOS"
GUARDED = "does not use it on macOS"
OWN_COPY = "has a copy of its own, which the shim does not reach"
GONE = ""  # no longer imports it at all


class Caller(NamedTuple):
    """What a program does from a version on, until a later row of it."""

    name: str
    since: str
    what: str
    instead: str = ""  # what its users can do, where the shim does not help

    def __str__(self) -> str:
        return f"{self.what}: {self.instead}" if self.instead else self.what


# A slow test reads the newest release of each of them from the index.
PLAIN = (
    "celery circus cotyledon distributed django-q2 faust faust-streaming granian neutron odoo parsl pgcli "
    "pytest-xdist rq salt sglang skypilot vllm vpn-slice xinference xonsh"
)
CALLERS = (
    *(Caller(name, "0", CALLS) for name in PLAIN.split()),
    Caller("apache-airflow", "0", CALLS),
    Caller("apache-airflow", "3", GONE),  # apache-airflow-core has the code
    Caller("apache-airflow-core", "0", CALLS),
    Caller("apache-airflow-core", "3.1", GUARDED),
    Caller("apache-airflow-providers-celery", "0", CALLS),
    Caller("apache-airflow-providers-celery", "3.13", GUARDED),
    Caller("apache-airflow-task-sdk", "0", GUARDED),
    Caller("gunicorn", "0", CALLS),
    Caller("gunicorn", "25", GUARDED),
    Caller("mutmut", "3", CALLS),
    Caller("mutmut", "3.6", GUARDED),
    Caller("ray", "0", CALLS),
    Caller("ray", "2.48", OWN_COPY, "upgrade to ray 2.56 or later"),
    Caller("ray", "2.56", GONE),
)

FIELD = re.compile(r"(?im)^(name|version):[ \t]*(\S+)[ \t\r]*$")
REQUIRES = re.compile(  # on macOS, and without an extra
    r"(?im)^Requires-Dist:\s*setproctitle\s*(?![\w.-])(?!.*\bextra\s*==)"
    r"(?!.*(==\s*['\"](linux|win32|windows)|!=\s*['\"]darwin))"
)


def numbers(version: str) -> list[int]:
    """Return the numbers of a version, by which versions can be compared."""
    return [int(number) for number in re.findall(r"\d+", version)[:4]]


def what(name: str, version: str, requires: bool) -> Caller | None:
    """Return the row for an installed distribution, None if it is not known to import setproctitle."""
    rows = [row for row in CALLERS if row.name == name and numbers(version) >= numbers(row.since)]
    if not rows and requires and name not in {row.name for row in CALLERS}:
        return Caller(name, version, CALLS)
    return rows[-1] if rows and rows[-1].what != GONE else None


def installed() -> dict[str, Caller]:
    """Return "name version" of the installed distributions that are known to import setproctitle, and their rows.

    Raises what importing a broken importlib_metadata raises.
    """
    from importlib_metadata import Distribution

    found: dict[str, Caller | None] = {}
    versions: dict[str, str] = {}
    for dist in Distribution.discover():
        with contextlib.suppress(Exception):  # Other people's metadata may raise anything.
            # Not dist.name and the like, which parse all of the file as an e-mail.
            head, _, _ = (dist.read_text("METADATA") or dist.read_text("PKG-INFO") or "").partition("\n\n")
            fields = {key.lower(): value for key, value in reversed(FIELD.findall(head))}
            name = re.sub(r"[-_.]+", "-", fields["name"]).lower()
            # The first one found on sys.path is the one that is imported.
            if versions.setdefault(name, fields["version"]) is fields["version"]:
                found[f"{name} {fields['version']}"] = what(
                    name, fields["version"], bool(REQUIRES.search(head))
                )
    return {program: row for program, row in sorted(found.items()) if row}
