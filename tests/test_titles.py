"""Titles mode: what `ps` shows, and that it costs nobody's life."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from consumers import harness
from consumers.declared import CONSUMERS, airflow, webserver
from environments import STAND_IN, SWITCH, Venv

TITLES = {SWITCH: "titles", "PYTHONPATH": str(STAND_IN)}


@pytest.fixture
def venv(make_venv: Callable[..., Venv]) -> Venv:
    return make_venv("psutil", extra="titles")


def seen_from_outside(venv: Venv, code: str, **variables: str) -> list[str]:
    """Run code in which `seen()` prints the process's title as another process sees it; return the titles."""
    looking = """
import json, os, subprocess, sys, threading
from setproctitle import getproctitle, setproctitle
def seen():
    look = "import psutil, sys; print(ascii(' '.join(psutil.Process(int(sys.argv[1])).cmdline()).strip()))"
    print(subprocess.check_output([sys.executable, "-c", look, str(os.getpid())], text=True), end="", flush=True)
"""
    out = venv.run("-c", looking + code, **{**TITLES, **variables}).stdout
    return [eval(line, {}) for line in out.splitlines()]  # written by ascii() above


@pytest.mark.parametrize(
    "title", ["a title", "naïve – 🐍", "x" * 200], ids=["plain", "unicode", "200 letters"]
)
def test_parent_and_forked_child_show_their_own_titles(venv: Venv, title: str) -> None:
    code = f"""
setproctitle({title!r}); seen()
pid = os.fork()
if not pid:
    setproctitle("child"); seen(); os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
seen()
"""
    assert seen_from_outside(venv, code) == [title, "child", title]


@pytest.mark.parametrize("title", ["''", "'x' * 65536", "'two\\nlines'", "'tab\\tbed'"])
def test_odd_titles_come_back_whole_and_harm_nobody(venv: Venv, title: str) -> None:
    code = f"""
setproctitle({title}); assert getproctitle() == {title}
setproctitle("then"); seen()
"""
    assert seen_from_outside(venv, code) == ["then"]


def test_titles_change_whether_set_before_or_after_threads_start(venv: Venv) -> None:
    code = """
setproctitle("before"); seen()
threading.Thread(target=threading.Event().wait, daemon=True).start()
setproctitle("after"); seen()
"""
    assert seen_from_outside(venv, code) == ["before", "after"]


def test_child_programs_see_every_environment_variable(venv: Venv) -> None:
    code = """
before = dict(os.environ)
setproctitle("x" * 4096)
os.environ["LATER"] = "value"
show = "import json, os; print(json.dumps(dict(os.environ)))"
after = json.loads(subprocess.check_output([sys.executable, "-c", show]))
assert after == {**before, "LATER": "value"}, before.items() ^ after.items()
"""
    seen_from_outside(venv, code, MARKER="m" * 1000)


def test_ps_shows_the_title(venv: Venv) -> None:
    code = 'print(repr(subprocess.check_output(["ps", "-o", "args=", "-p", str(os.getpid())], text=True).strip()))'
    assert seen_from_outside(venv, f"setproctitle('airflow worker'); {code}") == ["airflow worker"]


def test_a_thousand_children_set_titles_and_live(venv: Venv) -> None:
    code = """
setproctitle("parent")
for number in range(1000):
    pid = os.fork()
    if not pid:
        setproctitle(f"child {number}"); os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""
    venv.run("-c", f"import os; from setproctitle import setproctitle\n{code}", **TITLES)


RACES = {
    "eight threads set the first title": """
sys.setswitchinterval(1e-6)
barrier = threading.Barrier(8)
def work(number):
    barrier.wait(); setproctitle(f"title {number}")
in_threads(8)
""",
    "four threads set many": """
def work(number):
    for n in range(3000): setproctitle(f"title {number} {n}")
in_threads(4)
""",
    "a thread sets titles while children are forked": """
stop = threading.Event()
def work():
    while not stop.is_set(): setproctitle("from the thread")
thread = threading.Thread(target=work); thread.start()
for number in range(100):
    pid = os.fork()
    if not pid:
        signal.alarm(30)  # what hangs dies of SIGALRM
        setproctitle("child"); os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, number
stop.set(); thread.join()
""",
    "a signal handler sets one": """
signal.signal(signal.SIGALRM, lambda *_: setproctitle("from the handler"))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for number in range(5000): setproctitle(f"title {number}")
signal.setitimer(signal.ITIMER_REAL, 0)
""",
}


@pytest.mark.parametrize("how", RACES)
def test_titles_set_at_once_block_nobody(venv: Venv, how: str) -> None:
    code = f"""
import faulthandler, signal
faulthandler.dump_traceback_later(60, exit=True)
def in_threads(count):
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
{RACES[how]}
setproctitle("final"); seen()
"""
    assert seen_from_outside(venv, code) == ["final"]


@pytest.mark.parametrize("asked", [False, True])
def test_processtitles_records_reach_the_users_log_only_if_asked_for(venv: Venv, asked: bool) -> None:
    ask = "logging.getLogger('processtitle').setLevel(logging.DEBUG)" if asked else ""
    code = f"import logging; logging.basicConfig(level=logging.DEBUG); {ask}\nimport setproctitle as s; s.setproctitle('a title')"
    assert ("a title" in venv.run("-c", code, **TITLES).stderr) == asked


# At shutdown modules may be cleared, and none can be imported.
LAST_TITLES = {
    "__del__ of a global": "class Last:\n    def __del__(self): s.setproctitle('last')\nlast = Last()\n",
    "__del__ in a cycle": "class Last:\n    def __del__(self): s.setproctitle('last')\nlast = Last(); last.itself = last\nimport sys; sys.last = last\n",
    "atexit": "import atexit; atexit.register(lambda: s.setproctitle('last'))\n",
    "daemon threads": "import threading\ndef work():\n    while True: s.setproctitle('last')\n"
    "for _ in range(4): threading.Thread(target=work, daemon=True).start()\n",
}


@pytest.mark.parametrize("first", ["", "s.setproctitle('first')\n"], ids=["the only title", "the last title"])
@pytest.mark.parametrize("how", LAST_TITLES)
def test_titles_set_at_shutdown_print_nothing(venv: Venv, how: str, first: str) -> None:
    done = venv.run("-W", "error", "-c", f"import setproctitle as s\n{first}{LAST_TITLES[how]}", **TITLES)
    assert done.stderr == ""


def test_titles_leave_the_environment_that_ps_shows_alone(venv: Venv) -> None:
    """What SPT_NOENV asks of setproctitle."""
    code = """
def environment(): return open("/proc/self/environ", "rb").read()
before = environment()
setproctitle("x" * 10000)
assert environment() == before
"""
    seen_from_outside(venv, code, SPT_NOENV="1")


def test_arguments_are_checked_and_functions_named_as_without_titles(venv: Venv) -> None:
    code = """
import pickle, setproctitle as module
for bad in (b"bytes", "a\\0b", "\\ud800"):
    try: setproctitle(bad)
    except (TypeError, ValueError): pass
    else: raise AssertionError(bad)
assert setproctitle.__name__ == "setproctitle" and setproctitle.__module__ == "setproctitle"
assert pickle.loads(pickle.dumps(setproctitle)) is setproctitle is module.setproctitle
setproctitle(title="by keyword"); seen()
"""
    assert seen_from_outside(venv, code) == ["by keyword"]


def test_without_titles_mode_processtitle_is_never_imported(venv: Venv) -> None:
    code = """
setproctitle("title")
assert not {"processtitle", "airflow_setproctitle_shim.titles"} & set(sys.modules)
"""
    seen_from_outside(venv, code, **{SWITCH: "auto"})


def test_processtitle_is_prepared_once_and_to_be_safe_after_fork(
    make_venv: Callable[..., Venv], tmp_path: Path
) -> None:
    (tmp_path / "processtitle.py").write_text("def prepare(**options): print(options)\nset_to = print\n")
    code = "import setproctitle as s; [s.setproctitle(t) for t in 'ab']"
    out = make_venv().evaluate(code, **{SWITCH: "titles", "PYTHONPATH": str(tmp_path)})
    assert out.splitlines() == ["{'fork_safe_only': True}", "a", "b"]


WAITS = """
import os, threading
seen, inside, begun, forked = [], threading.Event(), threading.Event(), threading.Event()
# What is registered first runs last before a fork.
os.register_at_fork(before=lambda: (seen.append("fork"), forked.set()))
import setproctitle
os.register_at_fork(before=begun.set)
import processtitle

def show(title):
    inside.set()
    begun.wait()
    forked.wait(0.2)  # It must not come.
    seen.append("shown")

processtitle.show = show
thread = threading.Thread(target=setproctitle.setproctitle, args=("a title",))
thread.start()
inside.wait()
if not os.fork():
    os._exit(0)
thread.join()
os.wait()
print(seen)
"""


def test_a_fork_waits_for_a_title_that_is_being_shown(make_venv: Callable[..., Venv], tmp_path: Path) -> None:
    (tmp_path / "processtitle.py").write_text("def prepare(**_): pass\ndef set_to(title): show(title)\n")
    assert (
        make_venv().evaluate(WAITS, **{SWITCH: "titles", "PYTHONPATH": str(tmp_path)}) == "['shown', 'fork']"
    )


BROKEN = {
    "missing": (None, "ModuleNotFoundError: No module named 'processtitle'"),
    "too old": ("def prepare(): pass\nset_to = None\n", "TypeError: prepare() got an unexpected keyword"),
    "failing": ("def prepare(**_): raise OSError('no argv here')\n", "OSError: no argv here"),
    "failing later": (
        "def prepare(**_): pass\ndef set_to(title): raise OSError('no room')\n",
        "OSError: no room",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("flags", [(), ("-W", "error")], ids=["", "-W error"])
def test_a_broken_processtitle_is_warned_about_once_and_harms_nobody(
    make_venv: Callable[..., Venv], tmp_path: Path, how: str, flags: tuple[str, ...]
) -> None:
    source, why = BROKEN[how]
    if source is not None:
        (tmp_path / "processtitle.py").write_text(source)
    code = "import setproctitle as s\nfor t in 'abc':\n    s.setproctitle(t)\nprint(s.getproctitle())"
    done = make_venv().run(*flags, "-c", code, **{SWITCH: "titles", "PYTHONPATH": str(tmp_path)})
    assert done.stdout == "c\n"
    assert done.stderr.count("AIRFLOW_SETPROCTITLE_SHIM=titles shows no titles: ") == 1
    assert why in done.stderr
    if not flags:
        line = 3 if how == "failing later" else 1  # the user's own
        assert done.stderr.startswith(f"<string>:{line}: RuntimeWarning: ")
    assert "pip install 'airflow-setproctitle-shim[titles]'" in done.stderr


# --- real Airflow

COUNT = """
import sys
from airflow.cli.commands.webserver_command import GunicornMonitor
monitor = GunicornMonitor(int(sys.argv[1]), 2, 120, 0, 1, False)
print(monitor._get_num_ready_workers_running())
"""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("mode", "environ", "ready"),
    # The monitor looks for "[ready] ", with a blank, in psutil's cmdline()[0]. On Linux psutil splits at blanks
    # what has no NUL before its end, as processtitle's exact lengths have not and setproctitle's padding has.
    [("off", {"PYTHONPATH": ""}, 2), ("titles", {}, 0)],
    ids=["the real setproctitle", "titles mode"],
)
def test_airflow_2s_webserver_monitor_counts_ready_workers_by_their_titles(
    make_venv: Callable[..., Venv], tmp_path: Path, mode: str, environ: dict[str, str], ready: int
) -> None:
    declared = next(c for c in CONSUMERS if c.version == "2.10.5")
    venv = make_venv(*declared.requirements, exclude_newer=declared.exclude_newer)

    def work(place: harness.Place) -> None:
        port = airflow(place, "SequentialExecutor")
        place.finish("airflow", "db", "migrate")
        pid = webserver(place, port).pid

        def counted() -> bool:
            out = venv.evaluate(COUNT, str(pid), AIRFLOW_HOME=str(place.directory))
            return int(out.splitlines()[-1]) == ready

        place.until(f"the monitor counts {ready}", counted)

    consumer = dataclasses.replace(declared, work=work, environ=environ)
    outcome = harness.run(consumer, venv, tmp_path / "place", shim=mode)
    assert outcome.done and outcome.deaths == 0, outcome.failure + outcome.log[-2000:].decode()
