"""Installed distributions: who calls setproctitle here, whose files were edited by hand, and whether setproctitle was
deleted. Reads metadata, and no source file but Airflow's."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NamedTuple

from importlib_metadata import Distribution

from .. import is_active
from . import metadata
from .finding import Answer, Finding
from .state import reinstall

CALLS, GUARDS = "calls it", "keeps it from macOS itself"
# Who is known to import setproctitle, and what that comes to on macOS from which version on. Most of them import it
# where it is installed, and do not require it.
KNOWN = {
    "apache-airflow": (("0", CALLS), ("3", "")),
    "apache-airflow-core": (("0", CALLS), ("3.1", GUARDS)),
    "apache-airflow-task-sdk": (("0", GUARDS),),
    "gunicorn": (("0", CALLS), ("25", GUARDS)),
    "mutmut": (("3", CALLS), ("3.6", GUARDS)),
    "ray": (("0", CALLS), ("2.48", "has a copy of its own, which the shim does not reach")),
    **dict.fromkeys(("celery", "distributed", "faust", "faust-streaming", "granian"), (("0", CALLS),)),
    **dict.fromkeys(("neutron", "pgcli", "pytest-xdist", "rq", "salt", "sglang"), (("0", CALLS),)),
    **dict.fromkeys(("skypilot", "vllm", "xinference"), (("0", CALLS),)),
}
FIELD = re.compile(r"(?im)^(name|version):[ \t]*(\S+)[ \t\r]*$")
REQUIRES = re.compile(  # on macOS, and without an extra
    r"(?im)^Requires-Dist:\s*setproctitle\s*(?![\w.-])(?!.*\bextra\s*==)"
    r"(?!.*(==\s*['\"](linux|win32|windows)|!=\s*['\"]darwin))"
)
PATCH = re.compile(rb"from setproctitle import setproctitle\s+except ImportError:\s+def setproctitle\(")


class Package(NamedTuple):
    """An installed distribution."""

    name: str  # normalised
    version: str
    requires: bool  # setproctitle
    distribution: Distribution


def installed() -> list[Package]:
    """Return the installed distributions by name, without those whose metadata cannot be read."""
    found: dict[str, Package] = {}
    for dist in Distribution.discover():
        with contextlib.suppress(Exception):  # Other people's metadata may raise anything.
            # Not dist.name and the like, which parse all of the file as an e-mail.
            head, _, _ = (dist.read_text("METADATA") or dist.read_text("PKG-INFO") or "").partition("\n\n")
            fields = {key.lower(): value for key, value in reversed(FIELD.findall(head))}
            name = re.sub(r"[-_.]+", "-", fields["name"]).lower()
            # The first one found on sys.path is the one that is imported.
            found.setdefault(name, Package(name, fields["version"], bool(REQUIRES.search(head)), dist))
    return [found[name] for name in sorted(found)]


def users(packages: Sequence[Package]) -> dict[str, str]:
    """Return name and version of those that import setproctitle, and what that comes to on macOS."""
    found = {}
    for package in packages:
        for since, what in KNOWN.get(package.name, (("0", CALLS),) if package.requires else ()):
            if _release(package.version) >= _release(since):
                found[f"{package.name} {package.version}"] = what
    return {name: what for name, what in sorted(found.items(), key=lambda item: item[1] != CALLS) if what}


def _release(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:4]]


def is_there() -> bool:
    """Return whether the native setproctitle is installed, files and all."""
    # Not importlib's find_spec(): while the shim is on, that finds the shim's module.
    spec = PathFinder.find_spec("setproctitle")
    return bool(metadata.installed("setproctitle") and spec and spec.origin)


def told(packages: Sequence[Package]) -> str:
    """Return in words who uses setproctitle."""
    return ", ".join(f"{name} {what}" for name, what in users(packages).items()) or "nobody known"


def used_by(packages: Sequence[Package]) -> Answer:
    """Return who calls setproctitle here, as far as metadata and a list of known programs tell."""
    found = users(packages)
    answer = Answer(f"{len(packages)} installed distributions; setproctitle: {told(packages)}")
    evidence, remedy, severity = "", "nothing to do: the shim is not needed for them", "note"
    if not found:
        evidence = "nothing installed here uses setproctitle: is this the environment your workers run in?"
        remedy = "run this with the Python that runs your workers"
        if (
            is_active() or sys.platform == "darwin"
        ) and not is_there():  # else it may be for the user's own code
            severity = "warning"
    elif CALLS not in found.values():
        evidence = f"nothing installed here calls setproctitle on macOS: {told(packages)}"
    elif not is_there() and not any(package.requires for package in packages):
        evidence = (
            f"setproctitle is not installed, and does not need to be: {told(packages)} only where it is"
        )
    if evidence:
        answer.findings.append(Finding(severity, evidence, remedy))
    return answer


def edited(packages: Sequence[Package]) -> Answer:
    """Return which of Airflow's Python files do not have the hash in RECORD."""
    answer, number = Answer(""), 0
    for package in packages:
        if package.name.startswith("apache-airflow"):
            record = metadata.recorded(package.distribution)
            files = {
                Path(str(package.distribution.locate_file(name))): name
                for name in record
                if name.endswith(".py")
            }
            changed = [
                path
                for path, name in files.items()
                if not metadata.is_intact(path, record[name]) and path.is_file()
            ]
            number += len(files)
            if changed:
                evidence = f"{_files(len(changed))} of {package.name} {package.version}, edited by hand"
                if patched := sum(bool(PATCH.search(metadata.read(path))) for path in changed):
                    evidence += f"; {patched} to make setproctitle optional, which the shim makes needless"
                remedy = reinstall(f"{package.name}=={package.version}")
                answer.findings.append(Finding("warning", evidence, remedy, details=tuple(map(str, changed))))
    answer.looked_at = f"{_files(number)} of Airflow, by the hashes in RECORD"
    return answer


def _files(number: int) -> str:
    return f"{number} file{'s' * (number != 1)}"


def removed(packages: Sequence[Package]) -> Answer:
    """Return whether setproctitle was deleted though something installed requires it."""
    needy = tuple(f"{package.name} {package.version}" for package in packages if package.requires)
    answer = Answer(f"setproctitle's files; required by {', '.join(needy) or 'nobody'}")
    if needy and not is_there():
        state = "lacks files" if metadata.installed("setproctitle") else "is not installed"
        evidence = f"setproctitle {state}, though {needy[0]} requires it; with the shim it is safe to have"
        answer.findings.append(Finding("warning", evidence, reinstall("setproctitle"), details=needy))
    return answer
