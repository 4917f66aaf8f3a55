"""Which programs import setproctitle, and what they do with it on macOS.

A table, and its look-up among what is installed here. README's table of who needs the shim is made
from it, too. It is read when somebody asks for `status`, never at interpreter start.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple


class Does(enum.Enum):
    """What a program does on macOS without the shim, and what `status` says of it."""

    DIES = "{program}"
    WITH_OPTION = "{program} {words}"
    # Its import alone can make other libraries crash after fork (py-setproctitle #113, #133).
    ONLY_IMPORTS = "{program}, which only imports it in a process that forks"
    NO_FORK = "not needed by {program}: it does not fork on macOS{words}"
    GUARDED = "not needed by {program}: it does not use setproctitle on macOS"
    OLD_COPY = "not needed by {program}: {words}"
    GONE = "not needed by {program}: it does not import setproctitle"
    OWN_COPY = "cannot protect {program}: {words}"
    FAILS = "{program} fails on macOS: {words}"
    NOT_EXAMINED = (
        "{program} requires setproctitle, and nobody has examined what it does with it on macOS"
    )

    @property
    def is_protected(self) -> bool:
        """Whether the shim keeps something from dying."""
        return self in (Does.DIES, Does.WITH_OPTION, Does.ONLY_IMPORTS)


class Versions(NamedTuple):
    """Some versions of a distribution."""

    name: str
    since: str = "0"
    before: str = ""  # the first version that is not among them, "" if there is none

    def include(self, version: str) -> bool:
        """Return whether a version is one of them. A pre-release counts as its release."""
        return _numbers(self.since) <= _numbers(version) and (
            not self.before or _numbers(version) < _numbers(self.before)
        )


class InReadme(NamedTuple):
    """How README's table tells of a row. Neighbours that need the same share a line there."""

    run: str
    need: str


class Caller(NamedTuple):
    """What some versions of a program do."""

    name: str  # of the distribution: lower case, single hyphens
    does: Does
    since: str = "0"
    before: str = ""
    beside: Versions | None = None  # only where one of these is installed, too
    words: str = ""  # for what `does` says
    optional: bool = False  # It uses setproctitle only where something else installed it.
    mends: str = ""  # of what fails: a requirement to install
    or_else: str = ""  # of what fails: a sentence with what helps instead
    seen: str = ""  # where: "run" on a simulated Mac, or the place in its code
    in_readme: InReadme | None = None

    @property
    def versions(self) -> Versions:
        """Return the versions that this is true of."""
        return Versions(self.name, self.since, self.before)


class Program(NamedTuple):
    """A program that is installed here, and what the table has of it."""

    version: str
    row: Caller

    @property
    def says(self) -> str:
        """What `status` says of it, behind "protects" if it is protected."""
        program = f"{self.row.name} {self.version}"
        return self.row.does.value.format(program=program, words=self.row.words)

    def as_json(self) -> dict[str, str]:
        """Return what `status --json` has of it."""
        does = self.row.does.name.lower().replace("_", " ")
        return {"name": self.row.name, "version": self.version, "does": does, "says": self.says}


ONLY_WITH_OPTION = "only with an option or a setting, which `status` names"
ON_DEMAND = "no, unless your code chooses fork"
# To add a program: a row for each of its ranges of versions, and both sides of each border in
# tests/test_callers.py. The first row that fits counts. Where it depends on what `status` cannot
# see, as on Airflow's version beside a provider, a program counts as one that dies.
CALLERS = (
    Caller(
        "apache-airflow",
        Does.DIES,
        before="3",
        seen="2.10.5, 2.11.0 run: webserver, log server, tasks",
        in_readme=InReadme("Airflow 2", "yes; or upgrade to Airflow 3.1 or later"),
    ),
    Caller("apache-airflow", Does.GONE, since="3", seen="apache-airflow-core has the code"),
    Caller(
        "apache-airflow-core",
        Does.DIES,
        before="3.1",
        beside=Versions("gunicorn", before="25"),
        seen="3.0.2, 3.0.6 run: its log server",
        in_readme=InReadme(
            "Airflow 3.0",
            "yes, for the log server, with gunicorn up to 24; or upgrade to Airflow 3.1 or later",
        ),
    ),
    Caller(
        "apache-airflow-core",
        Does.WITH_OPTION,
        before="3.1",
        words="when started as airflow api-server -D",
        seen="3.0.2 run; local_executor.py:36 imports it in a process that forks",
    ),
    Caller(
        "apache-airflow-core",
        Does.GUARDED,
        since="3.1",
        seen="3.1.0, 3.3.2",
        in_readme=InReadme("Airflow 3.1 or later", "no; but see gunicorn and Celery"),
    ),
    Caller("apache-airflow-task-sdk", Does.GUARDED, seen="1.0.0, 1.3.2"),
    Caller(
        "apache-airflow-providers-celery",
        Does.DIES,
        before="3.12.3",
        seen="3.12.2 celery_executor_utils.py:202, with Airflow 2",
    ),
    Caller(
        "apache-airflow-providers-celery",
        Does.GUARDED,
        since="3.12.3",
        seen="3.12.3, 3.12.4, 3.26.0",
    ),
    Caller(
        "apache-airflow-providers-openlineage",
        Does.DIES,
        before="2.7.0",
        seen="2.6.1 run, with a transport",
        in_readme=InReadme("Airflow's OpenLineage provider up to 2.6", "yes"),
    ),
    Caller(
        "apache-airflow-providers-openlineage",
        Does.ONLY_IMPORTS,
        since="2.7.0",
        seen="2.20.3 listener.py:70, :1053",
    ),
    Caller("apache-airflow-providers-edge3", Does.NO_FORK, before="1.2.0", seen="1.1.3"),
    Caller("apache-airflow-providers-edge3", Does.GUARDED, since="1.2.0", seen="1.2.0, 5.1.0"),
    Caller(
        "gunicorn",
        Does.DIES,
        before="25",
        optional=True,
        seen="22, 23 run; 20.1, 24.1.1 util.py",
        in_readme=InReadme("gunicorn up to 24", "yes; or upgrade to gunicorn 25 or later"),
    ),
    Caller("gunicorn", Does.GUARDED, since="25", seen="25.0.0; 27.0.1 run"),
    Caller(
        "celery",
        Does.FAILS,
        since="5.3",
        before="5.7",
        beside=Versions("billiard", since="4.3"),
        # It unpacks what only a forked worker has been given: celery #10683.
        words=(
            "every task, with the shim or without it, beside billiard 4.3 or later "
            "(ValueError: not enough values to unpack (expected 3, got 0))"
        ),
        mends="billiard<4.3",
        or_else=(
            "Or set FORKED_BY_MULTIPROCESSING=1 for the worker alone, or use Celery 5.7, which "
            "Airflow's Celery provider cannot do yet."
        ),
        seen="5.3.6, 5.5.3, 5.6.3 run with billiard 4.3.2",
        in_readme=InReadme(
            "Celery 5.3 to 5.6 with billiard 4.3 or later",
            "yes, and `pip install 'billiard<4.3'`: else every task fails",
        ),
    ),
    Caller(
        "celery",
        Does.DIES,
        before="5.7",
        optional=True,
        seen="5.2.7, 5.5.3, 5.6.3 run with billiard 4.2.4",
        in_readme=InReadme("Celery up to 5.6 with billiard below 4.3", "yes"),
    ),
    Caller(
        "celery",
        Does.WITH_OPTION,
        since="5.7",
        words="when started as celery beat --detach, or by Airflow as airflow celery worker -D",
        optional=True,
        seen="5.7.0 run",
        in_readme=InReadme(
            "Celery 5.7 or later", "only for `celery beat --detach` and `airflow celery worker -D`"
        ),
    ),
    Caller(
        "rq",
        Does.DIES,
        optional=True,
        seen="1.16.2, 2.0.0, 2.6.1, 3.0.0 run",
        in_readme=InReadme("RQ", "yes"),
    ),
    Caller("django-q2", Does.NO_FORK, before="1.11", optional=True, seen="1.10.0 run"),
    Caller(
        "django-q2",
        Does.DIES,
        since="1.11",
        optional=True,
        seen="1.11.1 run; cluster.py:45",
        in_readme=InReadme("django-q2 1.11 or later", "yes"),
    ),
    Caller(
        "mitogen",
        Does.DIES,
        optional=True,
        seen="0.3.54 run: a playbook of Ansible hangs",
        in_readme=InReadme("Mitogen for Ansible", "yes"),
    ),
    Caller(
        "thespian",
        Does.DIES,
        optional=True,
        seen="4.0.1 run, with a multiprocess base",
        in_readme=InReadme("Thespian with a multiprocess base", "yes"),
    ),
    Caller(
        "mutmut",
        Does.DIES,
        since="3",
        before="3.6",
        seen="run",
        in_readme=InReadme("mutmut 3.0 to 3.5", "yes; or upgrade to mutmut 3.6 or later"),
    ),
    Caller("mutmut", Does.GUARDED, since="3.6", seen="3.8.1"),
    Caller(
        "parsl",
        Does.DIES,
        before="2024.6.17",
        seen="2024.6.10, its HighThroughputExecutor",
        in_readme=InReadme("Parsl up to 2024.6.10", "yes; or upgrade"),
    ),
    Caller(
        "parsl",
        Does.WITH_OPTION,
        since="2024.6.17",
        before="2025.3.31",
        words="with its MonitoringHub or usage tracking",
        seen="its code",
    ),
    Caller(
        "parsl",
        Does.WITH_OPTION,
        since="2025.3.31",
        words="with its MonitoringHub",
        seen="2026.10.26 run: the monitor is killed",
        in_readme=InReadme("later Parsl", ONLY_WITH_OPTION),
    ),
    Caller(
        "circus",
        Does.WITH_OPTION,
        words="when started with --daemon",
        optional=True,
        seen="0.19.0 run",
        in_readme=InReadme("circus", ONLY_WITH_OPTION),
    ),
    Caller(
        "salt",
        Does.WITH_OPTION,
        words="when started with -d",
        seen="its daemonize() run",
        in_readme=InReadme("Salt", ONLY_WITH_OPTION),
    ),
    Caller(
        "odoo",
        Does.WITH_OPTION,
        words="when started with --workers above 0",
        optional=True,
        seen="its code",
        in_readme=InReadme("Odoo", ONLY_WITH_OPTION),
    ),
    Caller(
        "vpn-slice",
        Does.WITH_OPTION,
        words="when started with --prevent-idle-timeout; else it only imports it before it forks",
        seen="0.16.1 run",
        in_readme=InReadme("vpn-slice", ONLY_WITH_OPTION),
    ),
    Caller(
        "distributed",
        Does.WITH_OPTION,
        words="where distributed.worker.multiprocessing-method is fork in its configuration",
        optional=True,
        seen="2026.8.0 run",
        in_readme=InReadme("Dask distributed", ONLY_WITH_OPTION),
    ),
    Caller(
        "cotyledon",
        Does.WITH_OPTION,
        words="where its ServiceManager is given an mp_context of fork",
        seen="2.2.0 run",
        in_readme=InReadme("cotyledon", ONLY_WITH_OPTION),
    ),
    Caller(
        "vllm",
        Does.WITH_OPTION,
        words="with VLLM_WORKER_MULTIPROC_METHOD=fork",
        seen="its code",
        in_readme=InReadme("vLLM", ONLY_WITH_OPTION),
    ),
    Caller(
        "sglang",
        Does.ONLY_IMPORTS,
        # SGLANG_EARLY_FORKSERVER=1, with which workers would fork, is in none of them (#40596).
        seen="0.5.10, 0.5.11, 0.5.17, 0.5.23 base_processor.py: a pool of forked processes",
    ),
    Caller(
        "granian",
        Does.NO_FORK,
        words=", unless your code calls multiprocessing.set_start_method('fork')",
        optional=True,
        seen="2.8.9 run",
        in_readme=InReadme("granian", ON_DEMAND),
    ),
    Caller("pytest-xdist", Does.NO_FORK, optional=True, seen="3.8.0: workers by exec"),
    Caller("skypilot", Does.NO_FORK, seen="0.14.1"),
    Caller("xinference", Does.NO_FORK, seen="4.1.0"),
    Caller("chia-blockchain", Does.NO_FORK, seen="2.7.5"),
    Caller("faust", Does.NO_FORK, optional=True, seen="1.10.4"),
    Caller("faust-streaming", Does.NO_FORK, optional=True, seen="0.15.3"),
    Caller("pgcli", Does.NO_FORK, seen="4.7.1"),
    Caller("xonsh", Does.NO_FORK, optional=True, seen="0.25.0"),
    Caller("deluge", Does.NO_FORK, optional=True, seen="2.2.0"),
    Caller(
        "ray",
        Does.OLD_COPY,
        before="2.48",
        words="the setproctitle 1.2.2 that it brings makes no calls that crash",
        seen="2.47.1",
    ),
    Caller(
        "ray",
        Does.OWN_COPY,
        since="2.48",
        before="2.56",
        words="it has a setproctitle of its own inside: upgrade to ray 2.56 or later",
        seen="ray-project/ray #59663, #63366",
        in_readme=InReadme(
            "Ray 2.48 to 2.55",
            "it cannot help, as Ray has a setproctitle inside: upgrade to Ray 2.56 or later",
        ),
    ),
    Caller("ray", Does.GONE, since="2.56", seen="ray-project/ray #63366"),
)
FIELD = re.compile(r"(?im)^(name|version):[ \t]*(\S+)[ \t\r]*$")
# On macOS, and without an extra.
REQUIRES = re.compile(
    r"(?im)^Requires-Dist:\s*setproctitle\s*(?![\w.-])"
    r"(?!.*\bextra\s*==|.*(==\s*['\"](linux|win)|!=\s*['\"]darwin))"
)


def readme_rows() -> Iterator[tuple[str, str]]:
    """Yield the lines of README's table: what you run on macOS, and whether you need the shim.

    A program that uses setproctitle only where something else installed it has a star.
    """
    told = [(row.in_readme, row.optional) for row in CALLERS if row.in_readme]
    for need, group in itertools.groupby(told, lambda one: one[0].need):
        yield ", ".join(f"{row.run} \\*" if optional else row.run for row, optional in group), need


def what(name: str, versions: dict[str, str], requires: bool = False) -> Program | None:
    """Return what an installed program does on macOS, None if it does nothing with setproctitle.

    `versions`: those of all that is installed. `requires`: whether its metadata requires it.
    """
    version = versions[name]
    rows = [row for row in CALLERS if row.name == name]
    for row in rows:
        beside = row.beside
        if row.versions.include(version) and (
            not beside or (beside.name in versions and beside.include(versions[beside.name]))
        ):
            return Program(version, row)
    return Program(version, Caller(name, Does.NOT_EXAMINED)) if requires and not rows else None


def programs() -> list[Program]:
    """Return the programs that are installed here and have to do with setproctitle, by name.

    Raises what importing a broken importlib_metadata raises.
    """
    from importlib_metadata import Distribution

    versions, requiring = dict[str, str](), set[str]()
    for dist in Distribution.discover():
        with contextlib.suppress(Exception):  # Other people's metadata may raise anything.
            # Not dist.name and the like, which parse all of the file as an e-mail.
            text = dist.read_text("METADATA") or dist.read_text("PKG-INFO") or ""
            head, _, _ = text.partition("\n\n")
            fields = {key.lower(): value for key, value in reversed(FIELD.findall(head))}
            name = re.sub(r"[-_.]+", "-", fields["name"]).lower()
            # The first one found on sys.path is the one that is imported.
            if name not in versions:
                versions[name] = fields["version"]
                if REQUIRES.search(head):
                    requiring.add(name)
    found = (what(name, versions, name in requiring) for name in sorted(versions))
    return [program for program in found if program]


def _numbers(version: str) -> list[int]:
    """Return a version's numbers; 3 and 3.0 are the same."""
    numbers = [int(number) for number in re.findall(r"\d+", version)[:4]]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers
