"""Installed distributions: who calls setproctitle here, is it there, and were Airflow's files edited by hand."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NamedTuple

from importlib_metadata import Distribution

from .. import is_active
from .finding import Answer, Finding
from .state import install, numbers, version

CALLS, GUARDS = "calls it", "keeps it from macOS itself"
# Who is known to import setproctitle, most of them where it is installed, and from which version on what comes of it.
KNOWN = {
    "apache-airflow": (("0", CALLS), ("3", "")),
    "apache-airflow-core": (("0", CALLS), ("3.1", GUARDS)),
    "apache-airflow-task-sdk": (("0", GUARDS),),
    "gunicorn": (("0", CALLS), ("25", GUARDS)),
    "mutmut": (("3", CALLS), ("3.6", GUARDS)),
    "ray": (("0", CALLS), ("2.48", "has a copy of its own, which the shim does not reach")),
}
ALWAYS = (
    "celery distributed faust faust-streaming granian neutron pgcli pytest-xdist rq salt sglang skypilot vllm"
)
KNOWN.update(dict.fromkeys([*ALWAYS.split(), "xinference"], (("0", CALLS),)))
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
    return [found[name] for name in sorted(found)]


def users(packages: Sequence[Package]) -> dict[str, str]:
    """Return name and version of those that import setproctitle, callers first, and what comes of it on macOS."""
    found: dict[str, str] = {}
    for name, release, requires in packages:
        rows = KNOWN.get(name, (("0", CALLS),) if requires else ())
        found |= {f"{name} {release}": what for since, what in rows if numbers(release) >= numbers(since)}
    return {name: what for name, what in sorted(found.items(), key=lambda item: item[1] != CALLS) if what}


def is_there() -> bool:
    """Return whether the native setproctitle is installed, files and all."""
    # Not importlib's find_spec(): while the shim is on, that finds the shim's module.
    spec = PathFinder.find_spec("setproctitle")
    return bool(version("setproctitle") and spec and spec.origin)


def used_by(packages: Sequence[Package]) -> Answer:
    """Return who calls setproctitle here, as far as metadata and a list of known programs tell, and if it is there."""
    found, there = users(packages), is_there()
    told = ", ".join(f"{name} {what}" for name, what in found.items())
    needy = [f"{package.name} {package.version}" for package in packages if package.requires]
    severity, remedy = "note", "nothing to do: the shim is not needed for them"
    if needy and not there:
        evidence = (
            f"setproctitle is not there, though {needy[0]} requires it; with the shim it is safe to have"
        )
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
    told = told or f"none of {len(packages)} installed distributions is known to"
    return Answer(told, [Finding(severity, evidence, remedy)])


def edited(packages: Sequence[Package]) -> Answer:
    """Return which of Airflow's Python files do not have the hash that RECORD gives."""
    answer, number = Answer(""), 0
    for name, release, _ in packages:
        changed: dict[Path, bytes] = {}
        for path, content, intact in _python_files(name) if name.startswith("apache-airflow") else ():
            number += 1
            changed.update({} if intact else {path: content})
        if changed:
            evidence = f"{len(changed)} file{'s' * (len(changed) > 1)} of {name} {release}, edited by hand"
            if patched := sum(bool(PATCH.search(content)) for content in changed.values()):
                evidence += f"; {patched} to make setproctitle optional, which the shim makes needless"
            remedy = install(f"{name}=={release}")
            answer.findings.append(Finding("warning", evidence, remedy, details=tuple(map(str, changed))))
    answer.looked_at = f"Airflow's Python files, by the hashes in RECORD: {number}"
    return answer


def _python_files(name: str) -> Iterator[tuple[Path, bytes, bool]]:
    """Yield a distribution's Python files that have a hash, with their content, and whether it is as installed."""
    with contextlib.suppress(Exception):  # RECORD may be in any state, and files gone.
        for file in Distribution.from_name(name).files or []:
            path = Path(str(file.locate()))
            if file.suffix == ".py" and file.hash and path.is_file():
                content = path.read_bytes()
                digest = base64.urlsafe_b64encode(hashlib.new(file.hash.mode, content).digest())
                yield path, content, digest.rstrip(b"=").decode() == file.hash.value
