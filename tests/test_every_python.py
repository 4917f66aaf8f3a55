"""What may differ from one Python to the next: flags, lazy imports, subinterpreters, site's hidden files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest
from support.environments import SWITCH, Venv

SERVED = "import setproctitle; print(setproctitle.__file__)"
FLAGS = [
    *(
        "-I",
        "-E",
        "-s",
        "-B",
        "-O",
        "-OO",
        "-X dev",
        "-W error -X dev -bb",
        "-X frozen_modules=off",
    ),
    *["-X lazy_imports=all"] * (sys.version_info >= (3, 15)),
]


@pytest.fixture
def mac(make_venv: Callable[..., Venv]) -> Venv:
    return make_venv()


@pytest.mark.parametrize("flags", FLAGS)
def test_it_is_served_without_a_word_under(flags: str, mac: Venv) -> None:
    done = mac.run(*flags.split(), "-c", SERVED)
    assert done.stdout.endswith("replacement.py\n") and done.stderr == ""


def test_python_v_says_once_what_is_served_and_from_where(mac: Venv) -> None:
    said = mac.run("-v", "-c", f"import airflow_setproctitle_shim.replacement; {SERVED}")
    lines = [line for line in said.stderr.splitlines() if line.startswith("airflow-setproc")]
    assert lines == [f"airflow-setproctitle-shim: serves setproctitle from {said.stdout.strip()}"]


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


def test_every_other_modules_spec_is_the_same(mac: Venv) -> None:
    on, off = (json.loads(mac.evaluate(SPECS, **{SWITCH: value})) for value in ("on", "off"))
    assert on == off and len(on) > 200


PROGRAMS = {
    "once site.main() has run, where -S kept it from running": """
import sys
assert "airflow_setproctitle_shim" not in sys.modules
import site; site.main()
import setproctitle
""",
    "in a subinterpreter with titles of its own": """
import sys
code = '''
import setproctitle
setproctitle.setproctitle("sub")
assert setproctitle.__file__.endswith("replacement.py") and setproctitle.getproctitle() == "sub"
'''
import setproctitle
setproctitle.setproctitle("main")
if sys.version_info >= (3, 14):
    from concurrent import interpreters
    interpreters.create().exec(code)
elif sys.version_info >= (3, 13):
    import _interpreters
    assert _interpreters.exec(_interpreters.create(), code) is None
else:
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        sys.exit("this Python has no subinterpreters")
    interpreters.run_string(interpreters.create(), code)
assert setproctitle.getproctitle() == "main"
""",
    "by Airflow's entry point where -S and site.main() pass over hidden files": """
import os, stat, sys, types
# Only macOS's lstat() tells the flag. With -S it can be changed before site asks.
def lstat(path, real=os.lstat, **how):
    hidden = os.path.basename(path) == "airflow_setproctitle_shim.pth"
    info = real(path, **how)
    return types.SimpleNamespace(st_mode=info.st_mode, st_flags=stat.UF_HIDDEN) if hidden else info
os.lstat = lstat
import site; site.main()
if "UF_HIDDEN" not in open(site.__file__).read():
    sys.exit("this Python's site.py knows no hidden files")
assert "airflow_setproctitle_shim" not in sys.modules
import importlib_metadata
[entry] = importlib_metadata.entry_points(group="airflow.policy", name="airflow_setproctitle_shim")
entry.load()
import setproctitle
""",
    "lazily as PEP 810 has it": """
import sys
lazy import setproctitle
lazy from setproctitle import getproctitle
assert "setproctitle" not in sys.modules
""",
}


TITLE = (
    "setproctitle.setproctitle('title'); print(setproctitle.getproctitle(), setproctitle.__file__)"
)


@pytest.mark.parametrize("how", PROGRAMS)
def test_it_is_served(how: str, mac: Venv) -> None:
    if "PEP 810" in how and sys.version_info < (3, 15):
        pytest.skip("lazy imports came with Python 3.15")
    done = mac.run(*["-S"] * ("-S" in how), "-c", PROGRAMS[how] + TITLE, check=False)
    if done.stderr.startswith("this Python"):
        pytest.skip(done.stderr.strip())
    assert done.stdout.startswith("title ") and done.stdout.endswith("replacement.py\n"), (
        done.stderr
    )
