"""The simulated Mac: the one way in which the tests play one. Each process of an environment sees it.

`play_in()` copies simulated_mac.py into a virtual environment, with a startup file that sorts before all
others. So every Python of that environment, started by spawn, by exec or by a shell, sees macOS from its
first line to its last, as programs do on a Mac: sys.platform, os.uname(), `_scproxy`, and the start
methods that follow from them. What is forgotten fails loudly, when the environment is made (`Forgotten`)
or when a process asks for what only a Mac has.

Not played: the system's libraries, mac_ver(), kqueue; epoll and /proc are there, though a Mac has neither.
So nothing can be installed by an environment's own pip as long as it plays a Mac; see `leave()`.
"""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from support.mac.simulated_mac import NOT_PLAYED

__all__ = [
    "FILES",
    "NOT_PLAYED",
    "SEE_A_MAC",
    "SEE_LINUX",
    "Forgotten",
    "Package",
    "leave",
    "play_in",
]

HERE = Path(__file__).parent
STARTUP_FILE = "aaa_simulated_mac.pth"
STARTUP_LINE = (
    'import sys; sys.platform == "darwin" or __import__("simulated_mac").play()\n'  # may run twice
)
COPIED = ("simulated_mac.py", "_scproxy.py")
FILES = (STARTUP_FILE, *COPIED)


class Forgotten(AssertionError):
    """A package has Linux's compiled parts and asks for macOS, and nobody has looked at what it does then."""


class Package(NamedTuple):
    """A package with compiled parts for Linux whose Python code asks whether this is macOS."""

    name: str  # of its directory in site-packages, and of its wheel
    why: str


# Their files see Linux, wherever they lie: `sys.platform` is replaced in them.
SEE_LINUX = [
    Package(
        name="psutil",
        why="imports _psutil_osx on macOS. Ray and ddtrace bring copies of their own.",
    ),
]
# They were looked at: they do what they do on a Mac.
SEE_A_MAC = [
    Package(name="aiohttp", why="asks, but takes the same way everywhere."),
    Package(name="cffi", why="only its compiler asks, which nobody calls."),
    Package(
        name="ddtrace", why="names its firewall's library otherwise, which no test switches on."
    ),
    Package(
        name="gevent",
        why="goes back to fork in multiprocessing and passes over addresses, in Python.",
    ),
    Package(
        name="pendulum",
        why="reads the local time zone from /etc/localtime, which both systems have.",
    ),
    Package(name="ray", why="asks when it starts a cluster; it is only imported."),
    Package(
        name="setproctitle", why="calls its compiled part at import, which Linux's can do as well."
    ),
    Package(
        name="SQLAlchemy",
        why="asks, but takes the same way everywhere; drivers that ask are not used.",
    ),
    Package(
        name="tornado", why="takes one more error for a lost connection, and skips an address."
    ),
]


def play_in(site_packages: Path) -> None:
    """Make all processes of an environment see macOS; on a Mac they do already. Raises Forgotten.

    It must be done after everything was installed.
    """
    if not _is_linux():
        return
    _check(site_packages)
    for name in COPIED:
        shutil.copyfile(HERE / name, site_packages / name)
    # sysconfig imports its data by a name that has the platform in it.
    data: str = sysconfig._get_sysconfigdata_name()  # type: ignore[attr-defined]
    alias = (
        f"import importlib\nbuild_time_vars = importlib.import_module({data!r}).build_time_vars\n"
    )
    (site_packages / f"{data.replace('linux', 'darwin', 1)}.py").write_text(alias)
    for package in SEE_LINUX:
        for file in site_packages.glob(f"**/{package.name}/**/*.py"):
            text = file.read_bytes()
            file.unlink()  # It may be a hard link into an installer's cache.
            file.write_bytes(text.replace(b"sys.platform", repr(sys.platform).encode()))
    # At the end, so that there is all that it needs.
    (site_packages / STARTUP_FILE).write_text(STARTUP_LINE)


def leave(site_packages: Path) -> None:
    """Make new processes of the environment see Linux again."""
    (site_packages / STARTUP_FILE).unlink(missing_ok=True)


def _is_linux() -> bool:
    # Type checkers, which take this for a Mac, would not look at what follows a plain comparison.
    return sys.platform.startswith("linux")


def _check(site_packages: Path) -> None:
    """Raise Forgotten if a package with Linux's compiled parts asks for macOS and is in neither table."""
    known = {package.name.lower() for package in SEE_LINUX + SEE_A_MAC}
    for wheel in site_packages.glob("*.dist-info/WHEEL"):
        name = wheel.parent.name.partition("-")[0]
        if name.lower() in known or "linux_" not in wheel.read_text(encoding="utf-8"):
            continue
        for line in (wheel.parent / "RECORD").read_text(encoding="utf-8").splitlines():
            file = site_packages / line.partition(",")[0]
            if file.suffix != ".py" or not file.is_file() or {"test", "tests"} & {*file.parts}:
                continue
            if re.search(rb"""["'][Dd]arwin["']""", file.read_bytes()):
                raise Forgotten(
                    f"{name} has Linux's compiled parts and asks for macOS in {file}: look at what it does"
                    f" there, and add a row to a table in {__file__}"
                )
