"""What must hold on every Python. The matrix runs these on all of them, pytest on the one it runs on."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

from environments import ROOT, STARTUP_FILE, SWITCH, Venv

STATE = """
import json, sys
import setproctitle
print(json.dumps({
    "served": setproctitle.__file__.endswith("replacement.py"),
    "finders": sum(getattr(f, "__module__", "") == "airflow_setproctitle_shim" for f in sys.meta_path),
    "loaded": "airflow_setproctitle_shim" in sys.modules,
    "platform": sys.platform,
}))
"""
ACTIVE = {"served": True, "finders": 1, "loaded": True, "platform": "linux"}

FORK = """
import collections, os, setproctitle
ends = collections.Counter()
for number in range(100):
    pid = os.fork()
    if not pid:
        setproctitle.setproctitle("child %d" % number)
        os._exit(0 if setproctitle.getproctitle() == "child %d" % number else 1)
    ends[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])] += 1
print(*ends.items())
"""

THREADS = """
import sys, threading
rounds, threads = 200, 32
seen, failures = set(), []

def work():
    for _ in range(rounds):
        start.wait()
        try:
            import setproctitle
            setproctitle.setproctitle("title")
            seen.add(setproctitle.__file__)
        except Exception as error:
            failures.append(error)
        end.wait()
        # One thread alone removes it, between the rounds.
        if start.wait() == 0:
            sys.modules.pop("setproctitle", None)
        end.wait()

start, end = threading.Barrier(threads), threading.Barrier(threads)
workers = [threading.Thread(target=work) for _ in range(threads)]
for worker in workers: worker.start()
for worker in workers: worker.join()
assert not failures, failures[:3]
assert len(seen) == 1 and seen.pop().endswith("replacement.py"), seen
print("ok")
"""

AGAIN = """
import copy, importlib, importlib.util, inspect, pickle, pkgutil, runpy, sys
import setproctitle
setproctitle.setproctitle("title")
for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
    for name in setproctitle.__all__:
        function = getattr(setproctitle, name)
        assert pickle.loads(pickle.dumps(function, protocol)) is function
assert importlib.reload(setproctitle) is setproctitle
assert setproctitle.getproctitle() == "title"
first = sys.modules.pop("setproctitle")
second = importlib.import_module("setproctitle")
assert second is not first and second.getproctitle() == "title"
assert importlib.util.find_spec("setproctitle") is second.__spec__
assert "def setproctitle(title: str)" in inspect.getsource(second)
assert inspect.getsourcefile(second.setproctitle) == second.__file__
assert list(pkgutil.iter_modules(second.__path__)) == []
assert pkgutil.resolve_name("setproctitle:getproctitle") is second.getproctitle
fresh = importlib.util.module_from_spec(importlib.util.find_spec("setproctitle"))
fresh.__spec__.loader.exec_module(fresh)
assert fresh.getproctitle() == "title"
import setproctitle._setproctitle as c_module
assert c_module.__file__ == second.__file__
print("ok")
"""

SUBINTERPRETERS = """
import sys
code = '''
import setproctitle
setproctitle.setproctitle("sub")
assert setproctitle.__file__.endswith("replacement.py"), setproctitle.__file__
assert setproctitle.getproctitle() == "sub"
'''
import setproctitle
setproctitle.setproctitle("main")
if sys.version_info >= (3, 14):
    from concurrent import interpreters
    interpreters.create().exec(code)
elif sys.version_info >= (3, 13):
    import _interpreters
    assert _interpreters.exec(_interpreters.create(), code) is None
elif sys.implementation.name == "cpython":
    import _xxsubinterpreters
    _xxsubinterpreters.run_string(_xxsubinterpreters.create(), code)
else:
    raise SystemExit("has no subinterpreters")
assert setproctitle.getproctitle() == "main"
print("ok")
"""

# Python's own site.py asks lstat(), of which only macOS's sets the flag. With -S it can be changed before.
HIDDEN = """
import logging, os, stat, sys, types
logging.basicConfig(format="%(message)s")
real = os.lstat

def lstat(path, **how):
    info = real(path, **how)
    if os.path.basename(path) != "airflow_setproctitle_shim.pth":
        return info
    return types.SimpleNamespace(st_mode=info.st_mode, st_flags=stat.UF_HIDDEN)

os.lstat = lstat
import site
if "UF_HIDDEN" not in open(site.__file__).read():
    raise SystemExit("its site.py knows no hidden files")
site.main()
assert "airflow_setproctitle_shim" not in sys.modules
sys.platform = "darwin"
from importlib_metadata import entry_points
[entry] = entry_points(group="airflow.policy", name="airflow_setproctitle_shim")
entry.load()
sys.platform = "linux"
import setproctitle
assert setproctitle.__file__.endswith("replacement.py")
print("ok")
"""

LAZY_LOADER = """
import importlib.util, sys
spec = importlib.util.find_spec("setproctitle")
spec.loader = importlib.util.LazyLoader(spec.loader)
module = importlib.util.module_from_spec(spec)
sys.modules["setproctitle"] = module
spec.loader.exec_module(module)
assert "getproctitle" not in object.__getattribute__(module, "__dict__")
import airflow_setproctitle_shim as shim
shim.activate()
shim.deactivate()
shim.activate()
import setproctitle
setproctitle.setproctitle("lazy")
assert setproctitle.getproctitle() == "lazy"
assert setproctitle.__file__.endswith("replacement.py")
print("ok")
"""

LAZY_IMPORT = """
import sys
lazy import setproctitle
lazy from setproctitle import getproctitle
assert "setproctitle" not in sys.modules
setproctitle.setproctitle("lazy")
assert sys.modules["setproctitle"].__file__.endswith("replacement.py")
assert getproctitle() == "lazy"
print("ok")
"""

ALL_LAZY = """
import sys
import setproctitle
assert "setproctitle" not in sys.modules
from setproctitle import setproctitle as set_title
assert "setproctitle" not in sys.modules
set_title("lazy")
assert setproctitle.getproctitle() == "lazy"
assert setproctitle.__file__.endswith("replacement.py")
print("ok")
"""

# find_spec() answers from sys.modules where it can; this asks the finders for every module there is.
SPECS = """
import importlib, json, pkgutil, sys
names = {*sys.builtin_module_names, *getattr(sys, "stdlib_module_names", ())}
names |= {module.name for module in pkgutil.iter_modules()} - {"setproctitle"}
specs = {}
for name in sorted(names):
    spec = importlib._bootstrap._find_spec(name, None)
    specs[name] = spec and [spec.name, type(spec.loader).__name__, str(spec.origin), str(spec.cached),
                            spec.has_location, str(spec.submodule_search_locations)]
print(json.dumps(specs))
"""


class NotHere(Exception):
    """A check that means nothing on this Python; the message says why."""


@dataclass(frozen=True)
class Subject:
    """What is checked: two environments of one Python with the shim and setproctitle, if that can be had."""

    mac: Venv  # simulated macOS
    linux: Venv
    version: tuple[int, int]
    native: bool  # the C module is there

    @property
    def stand_in(self) -> str:
        """PYTHONPATH for the stand-in, as this Python sees it."""
        return self.mac.evaluate(
            "import os, airflow_setproctitle_shim as s; print(os.path.dirname(s.__file__) + '/stand_in')"
        )

    def state(self, venv: Venv, *flags: str, **variables: str) -> dict[str, object]:
        """What an interpreter with these flags looks like after `import setproctitle`; it must print no more."""
        path = {} if self.native else {"PYTHONPATH": self.stand_in}
        done = venv.run(*flags, "-c", STATE, check=True, **variables, **path)
        assert done.stderr == "", done.stderr
        result: dict[str, object] = json.loads(done.stdout)
        return result


@dataclass(frozen=True)
class Check:
    """One row of the matrix. `run` raises AssertionError, or NotHere where it means nothing."""

    name: str
    run: Callable[[Subject], None]


def startup_file_in_place(subject: Subject) -> None:
    assert (subject.mac.site_packages / STARTUP_FILE).is_file()


def untouched_on_linux(subject: Subject) -> None:
    expected = {"served": False, "finders": 0, "loaded": False, "platform": "linux"}
    assert subject.state(subject.linux) == expected
    if not subject.native:
        raise NotHere("setproctitle has no wheel for it; checked with the stand-in")


def served_at_start(subject: Subject) -> None:
    assert subject.state(subject.mac) == ACTIVE


def switched_off(subject: Subject) -> None:
    state = subject.state(subject.mac, **{SWITCH: "off"})
    assert (state["served"], state["finders"]) == (False, 0)


def forks_die_without(subject: Subject) -> None:
    ends = subject.mac.evaluate(FORK, PYTHONPATH=subject.stand_in, **{SWITCH: "off"})
    assert ends == "(-11, 100)", ends


def forks_live_with(subject: Subject) -> None:
    ends = subject.mac.evaluate(FORK, PYTHONPATH=subject.stand_in)
    assert ends == "(0, 100)", ends


def flag(*flags: str) -> Check:
    """The check that the replacement is served, silently, under these flags."""

    def served(subject: Subject) -> None:
        assert subject.state(subject.mac, *flags) == ACTIVE

    return Check(" ".join(flags), served)


def before_datahub(subject: Subject) -> None:
    # acryl-datahub's file of this name imports setproctitle at every start.
    theirs = subject.mac.site_packages / "datahub_setproctitle_patch.pth"
    theirs.write_text("import sys, setproctitle; sys.first = (sys.platform, setproctitle.__file__)\n")
    try:
        path = {} if subject.native else {"PYTHONPATH": subject.stand_in}
        platform, file = subject.mac.evaluate("import sys; print(*sys.first)", **path).split()
    finally:
        theirs.unlink()
    assert (platform, file.rpartition("/")[2]) == (sys.platform, "replacement.py")


def no_site(subject: Subject) -> None:
    code = "import sys; print(*(getattr(f, '__module__', '') for f in sys.meta_path))"
    assert "shim" not in subject.mac.run("-S", "-c", code).stdout


def no_site_then_main(subject: Subject) -> None:
    code = "import site; site.main(); import setproctitle; print(setproctitle.__file__)"
    assert subject.mac.run("-S", "-c", code).stdout.strip().endswith("replacement.py")


def prints_ok(program: str, *flags: str, since: tuple[int, int] = (3, 9)) -> Callable[[Subject], None]:
    """The check that the program prints "ok" on simulated macOS; it may end with why it cannot run here."""

    def run(subject: Subject) -> None:
        if subject.version < since:
            raise NotHere("came with Python {}.{}".format(*since))
        done = subject.mac.run(*flags, "-c", program, check=False)
        if done.returncode == 1 and done.stderr.startswith("has no"):
            raise NotHere(done.stderr.strip())
        assert done.stdout.strip() == "ok", done.stdout + done.stderr

    return run


def same_specs(subject: Subject) -> None:
    on, off = (json.loads(subject.mac.evaluate(SPECS, **{SWITCH: value})) for value in ("on", "off"))
    assert len(on) > 200
    assert on == off


def unit_tests(subject: Subject) -> None:
    if not subject.native:
        raise NotHere("they compare with the C module, which has no wheel for it")
    names = ("test_finder.py", "test_replacement.py")
    for name in names:
        shutil.copy(ROOT / "tests" / name, subject.linux.path)
    place = subject.linux.evaluate("import sys; print(sys.prefix)")
    # Hypothesis' own profile "ci" sets no deadline.
    options = ["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "-W", "error", "--hypothesis-profile=ci"]
    subject.linux.run("-m", "pytest", *options, *(f"{place}/{name}" for name in names))


def hidden(subject: Subject) -> None:
    done = subject.mac.run("-S", "-c", HIDDEN, check=False)
    if "knows no hidden files" in done.stderr:
        raise NotHere(done.stderr.strip())
    assert done.stdout == "ok\n", done.stderr
    assert "switched on late, by Airflow" in done.stderr, done.stderr


CHECKS = [
    Check("startup file where site looks", startup_file_in_place),
    Check("Linux: untouched", untouched_on_linux),
    Check("macOS: served from the start", served_at_start),
    Check("macOS: on before DataHub's startup file", before_datahub),
    Check("macOS: off means native", switched_off),
    Check("100 forks without the shim: 100 SIGSEGV", forks_die_without),
    Check("100 forks with the shim: none", forks_live_with),
    *map(flag, ["-I", "-E", "-s", "-B", "-O", "-OO"]),
    flag("-X", "dev"),
    flag("-W", "error", "-X", "dev", "-bb"),
    flag("-X", "frozen_modules=off"),
    Check("-S: no startup file is read", no_site),
    Check("-S, then site.main(): served", no_site_then_main),
    Check("startup file hidden: the entry point", hidden),
    Check("every other module's spec is the same", same_specs),
    Check("reload, pickle, re-import, inspect", prints_ok(AGAIN)),
    Check("32 threads import at once, 200 rounds", prints_ok(THREADS)),
    Check("subinterpreters", prints_ok(SUBINTERPRETERS)),
    Check("importlib.util.LazyLoader", prints_ok(LAZY_LOADER)),
    Check("lazy imports (PEP 810)", prints_ok(LAZY_IMPORT, since=(3, 15))),
    Check("-X lazy_imports=all (PEP 810)", prints_ok(ALL_LAZY, "-X", "lazy_imports=all", since=(3, 15))),
]

# Slower, and pytest runs these as they are on its own Python.
UNIT_TESTS = Check("test_finder.py, test_replacement.py", unit_tests)
