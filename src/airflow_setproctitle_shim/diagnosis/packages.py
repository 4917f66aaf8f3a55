"""Installed distributions: who calls setproctitle here, is it there, and were Airflow's files edited by hand."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NamedTuple

from importlib_metadata import Distribution

from .. import is_active
from .finding import Answer, Finding
from .state import install, numbers, version

CALLERS = Path(__file__).with_name("callers.txt")
CALLS = "calls it"
FIELD = re.compile(r"(?im)^(name|version):[ \t]*(\S+)[ \t\r]*$")
REQUIRES = re.compile(  # on macOS, and without an extra
    r"(?im)^Requires-Dist:\s*setproctitle\s*(?![\w.-])(?!.*\bextra\s*==)"
    r"(?!.*(==\s*['\"](linux|win32|windows)|!=\s*['\"]darwin))"
)
# The old advice was to make the import optional.
PATCH = re.compile(rb"from setproctitle import setproctitle\s+except ImportError:\s+def setproctitle\(")


class Package(NamedTuple):
    """An installed distribution, by its normalised name."""

    name: str
    version: str
    requires: bool  # setproctitle


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
            found.setdefault(name, Package(name, fields["version"], bool(REQUIRES.search(head))))
    return sorted(found.values())


def users(packages: list[Package]) -> dict[str, str]:
    """Return name and version of those that import setproctitle, callers first, and what comes of it on macOS."""
    rows = [[cell.strip() for cell in row.split("::")] for row in CALLERS.read_text("ascii").splitlines()]
    found: dict[str, str] = {}
    for name, release, requires in packages:
        known = [row for row in rows if row[0] == name] or ([[name, "0", CALLS]] if requires else [])
        for _, since, what in known:
            if numbers(release) >= numbers(since):
                found[f"{name} {release}"] = what
    return {name: what for name, what in sorted(found.items(), key=lambda item: item[1] != CALLS) if what}


def is_there() -> bool:
    """Return whether the native setproctitle is installed, files and all."""
    # Not importlib's find_spec(): while the shim is on, that finds the shim's module.
    spec = PathFinder.find_spec("setproctitle")
    return bool(version("setproctitle") and spec and spec.origin)


def used_by(packages: list[Package]) -> Answer:
    """Return who calls setproctitle here, as far as metadata and a list of known programs tell, and if it is there."""
    found, there = users(packages), is_there()
    needy = [f"{package.name} {package.version}" for package in packages if package.requires]
    told = ", ".join(f"{name} {what}" for name, what in found.items())
    told = told or f"none of {len(packages)} installed distributions is known to"
    severity, remedy = "note", "nothing to do: the shim is not needed for them"
    if needy and not there:
        evidence = f"setproctitle is not there, though {needy[0]} requires it"
        evidence += "; with the shim it is safe to have"
        severity, remedy = "warning", install("setproctitle")
    elif not found:
        evidence = "nothing installed here uses setproctitle: is this the environment your workers run in?"
        remedy = "run this with the Python that runs your workers"
        # Where it is installed all the same, it may be for the user's own code.
        if not there and (is_active() or sys.platform == "darwin"):
            severity = "warning"
    elif CALLS not in found.values():
        evidence = f"nothing installed here calls setproctitle on macOS: {told}"
    elif not there:
        evidence = f"setproctitle is not installed, and does not need to be: {told} only where it is"
    else:
        return Answer(told)
    return Answer(told, [Finding(severity, evidence, remedy)])


def edited(packages: list[Package]) -> Answer:
    """Return which of Airflow's Python files do not have the hash that RECORD gives."""
    findings, number = [], 0
    for name, release, _ in packages:
        if not name.startswith("apache-airflow"):
            continue
        changed: dict[str, bool] = {}  # whether it has the patch
        with contextlib.suppress(Exception):  # RECORD may be in any state, and files gone.
            for file in Distribution.from_name(name).files or []:
                path = Path(str(file.locate()))
                if file.suffix == ".py" and file.hash and path.is_file():
                    content = path.read_bytes()
                    digest = base64.urlsafe_b64encode(hashlib.new(file.hash.mode, content).digest())
                    number += 1
                    if digest.rstrip(b"=").decode() != file.hash.value:
                        changed[str(path)] = bool(PATCH.search(content))
        if changed:
            evidence = f"{len(changed)} file{'s' * (len(changed) > 1)} of {name} {release}, edited by hand"
            if patched := sum(changed.values()):
                evidence += f"; {patched} to make setproctitle optional, which the shim makes needless"
            remedy = install(f"{name}=={release}")
            findings.append(Finding("warning", evidence, remedy, details=tuple(changed)))
    return Answer(f"Airflow's Python files, by the hashes in RECORD: {number}", findings)
