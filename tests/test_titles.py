"""Titles mode: what `ps` shows, and that it costs nobody's life."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.environments import STAND_IN, SWITCH, Venv

TITLES = {SWITCH: "titles", "PYTHONPATH": str(STAND_IN)}


NEEDS_PROCESSTITLE = "processtitle is not installed: it needs CPython 3.10"


@pytest.fixture
def venv(make_venv: Callable[..., Venv]) -> Venv:
    pytest.importorskip("processtitle", reason=NEEDS_PROCESSTITLE)
    return make_venv("psutil", extra="titles")


@pytest.fixture
def with_processtitle(make_venv: Callable[..., Venv], tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs code in titles mode beside a processtitle of the test's; returns the output."""

    def run(processtitle: str, code: str, *flags: str) -> str:
        (tmp_path / "processtitle.py").write_text(processtitle)
        done = make_venv().run(
            *flags, "-c", code, **{SWITCH: "titles", "PYTHONPATH": str(tmp_path)}
        )
        return done.stdout + done.stderr

    return run


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


# --- what is shown


@pytest.mark.parametrize(
    "title", ["a title", "naïve – 🐍", "x" * 200], ids=["plain", "unicode", "200 letters"]
)
def test_parent_and_forked_child_show_their_own_titles(venv: Venv, title: str) -> None:
    code = f"""
setproctitle({title!a}); seen()
pid = os.fork()
if not pid:
    setproctitle("child"); seen(); os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
seen()
"""
    assert seen_from_outside(venv, code) == [title, "child", title]


def test_processtitle_is_prepared_once_and_to_be_safe_after_fork(
    with_processtitle: Callable[..., str],
) -> None:
    code = """
import importlib, sys, setproctitle
setproctitle.setproctitle("a")
for name in [name for name in sys.modules if name.startswith("airflow_setproctitle_shim")]:
    del sys.modules[name]
import airflow_setproctitle_shim as shim
shim.deactivate(); shim.activate()
import setproctitle; setproctitle.setproctitle("b")
"""
    source = "def prepare(**options): print(options)\nset_to = print\n"
    assert with_processtitle(source, code).splitlines() == ["{'fork_safe_only': True}", "a", "b"]


# --- no hang, whoever holds what

RACES = {
    "eight threads set the first title": """
sys.setswitchinterval(1e-6)
barrier = threading.Barrier(8)
def work(number):
    barrier.wait(); setproctitle(f"title {number}")
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "a thread sets titles while children are forked": """
os.getpid = lambda pid=os.getpid(): pid  # as for a child that got the pid of a process which has ended
stop = threading.Event()
def work():
    while not stop.is_set(): setproctitle("from the thread")
thread = threading.Thread(target=work); thread.start()
for number in range(100):
    pid = os.fork()
    if not pid:
        signal.alarm(30)  # what hangs dies of SIGALRM
        setproctitle("child")
        child = threading.Thread(target=setproctitle, args=("the child's thread",)); child.start(); child.join()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, number
stop.set(); thread.join()
""",
}


@pytest.mark.parametrize("how", RACES)
def test_titles_set_at_once_block_nobody_and_the_last_is_shown(venv: Venv, how: str) -> None:
    code = f"""
import faulthandler, signal
faulthandler.dump_traceback_later(60, exit=True)
{RACES[how]}
seen(); print(ascii(getproctitle()))
"""
    shown, last = seen_from_outside(venv, code)
    assert shown == last


UNDER_A_LOCK_OF_FORKS = """
import faulthandler, os, threading
faulthandler.dump_traceback_later(20, exit=True)
lock, stop = threading.Lock(), threading.Event()
# As logging's and concurrent.futures' are. What is registered first runs last before a fork.
os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
import setproctitle
def work():
    while not stop.is_set():
        with lock: setproctitle.setproctitle("from the thread")
thread = threading.Thread(target=work); thread.start()
for number in range(60):
    pid = os.fork()
    if not pid: os._exit(0)
    os.waitpid(pid, 0)
stop.set(); thread.join()
print("no deadlock")
"""


def test_titles_set_under_a_lock_that_forks_wait_for_hang_nobody(venv: Venv) -> None:
    done = venv.run("-W", "ignore", "-c", UNDER_A_LOCK_OF_FORKS, **TITLES)
    assert (done.stdout, done.stderr) == ("no deadlock\n", "")


FORKED_INSIDE_A_TITLE = """
import os, signal
import setproctitle
def handle(*_):
    setproctitle.setproctitle("from the handler")
    pid = os.fork()
    if not pid:
        signal.alarm(20)  # what hangs dies of SIGALRM
        setproctitle.setproctitle("child")
        return
    assert os.waitpid(pid, 0)[1] == 0
    print("the child lives", flush=True)
signal.signal(signal.SIGUSR1, handle)
setproctitle.setproctitle("outer")
os._exit(0)
"""


def test_a_child_forked_by_a_signal_handler_inside_a_title_shows_its_own(
    with_processtitle: Callable[..., str],
) -> None:
    source = """
import signal
def prepare(**_): pass
def set_to(title):
    print(title, flush=True)
    if title == "outer": signal.raise_signal(signal.SIGUSR1)
"""
    out = with_processtitle(source, FORKED_INSIDE_A_TITLE)
    assert out.splitlines() == ["outer", "child", "the child lives", "from the handler"]


PID_AGAIN = """
import os, signal, threading
import setproctitle
setproctitle.setproctitle("A")
real = os.getpid()
os.getpid = lambda: real  # as for a child that got the pid of a process which has ended
for generation in range(3):
    pid = os.fork()
    if pid:
        os._exit(os.waitpid(pid, 0)[1] != 0)
    signal.alarm(30)
    thread = threading.Thread(target=setproctitle.setproctitle, args=(f"thread of {generation}",), daemon=True)
    thread.start(); thread.join(10)
    if thread.is_alive(): os._exit(1)
"""


def test_threads_of_a_child_with_a_used_pid_set_titles(venv: Venv) -> None:
    venv.run("-c", PID_AGAIN, **TITLES)


AT_ANY_LINE = """
import sys, warnings
warnings.simplefilter("error")
fired = 0

def run_at(n, what):
    global fired
    def trace(frame, event, argument):
        nonlocal n
        global fired
        if frame.f_globals.get("__name__") != "airflow_setproctitle_shim.titles": return trace
        n -= event == "line"
        if n < 0:
            sys.settrace(None); fired += 1; what()
            return None
        return trace
    sys.settrace(trace)

import airflow_setproctitle_shim as shim
import processtitle
line = 0
while True:
    shim.deactivate(); shim.activate()
    finder = shim.finder
    vars(finder).update(shown=None, set_to=None, process_title=None)
    shown, titles = [], []
    import setproctitle
    vars(finder).update(shown=None, set_to=None)
    before = fired
    run_at(line, lambda: setproctitle.setproctitle("from the handler"))
    setproctitle.setproctitle("first")
    sys.settrace(None)
    assert processtitle.shown[-1] == setproctitle.getproctitle(), line
    setproctitle.setproctitle("last")
    assert processtitle.shown[-1] == "last", line
    if fired == before: break
    line += 1
print(line > 15)
"""


def test_a_title_set_by_a_signal_handler_at_any_line_of_the_preparation_is_shown(
    with_processtitle: Callable[..., str],
) -> None:
    source = "shown = []\ndef prepare(**_): pass\nset_to = shown.append\n"
    assert with_processtitle(source, AT_ANY_LINE) == "True\n"


# --- what a signal handler raises

RAISING = """
import signal
import setproctitle
import airflow_setproctitle_shim as shim

class SoftTimeLimitExceeded(Exception): pass

def handle(*_): raise {error}
signal.signal(signal.SIGUSR1, handle)

# A signal arrives in the very moment in which a call of show() gets its turn.
class Interrupted(dict):
    def setdefault(self, *arguments):
        super().setdefault(*arguments)
        signal.raise_signal(signal.SIGUSR1)

def title(text):
    try: setproctitle.setproctitle(text)
    except {error} as error: print("reached the program")

title("while it is shown")
shim.finder.turn = Interrupted()
title("before it is shown")
shim.finder.turn = dict(shim.finder.turn)
title("last")
"""
RAISED_INSIDE = """
import signal
def prepare(**_): pass
def set_to(title):
    if title == "while it is shown": signal.raise_signal(signal.SIGUSR1)
    print("shows", title)
"""


@pytest.mark.parametrize("error", ["TimeoutError", "RuntimeError", "SoftTimeLimitExceeded"])
def test_what_a_signal_handler_raises_reaches_the_program_and_titles_go_on(
    with_processtitle: Callable[..., str], error: str
) -> None:
    out = with_processtitle(RAISED_INSIDE, RAISING.format(error=error))
    assert out.splitlines() == ["reached the program", "reached the program", "shows last"]


PREPARED_ONCE = """
import signal
prepared = []
def prepare(**_):
    if prepared: raise RuntimeError("a second time")
    prepared.append(True)
    signal.raise_signal(signal.SIGUSR1)
set_to = print
"""
RAISING_IN_THE_PREPARATION = """
import signal
def handle(*_): raise TimeoutError
signal.signal(signal.SIGUSR1, handle)
try: import setproctitle
except TimeoutError: print("reached the program")
import setproctitle
setproctitle.setproctitle("last")
"""


def test_what_a_signal_handler_raises_when_processtitle_is_ready_does_not_prepare_it_again(
    with_processtitle: Callable[..., str],
) -> None:
    out = with_processtitle(PREPARED_ONCE, RAISING_IN_THE_PREPARATION)
    assert out.splitlines() == ["reached the program", "last"]


def test_what_is_raised_in_c_and_is_no_failure_of_processtitles_reaches_the_program(
    with_processtitle: Callable[..., str],
) -> None:
    """It has no function of Python's, so that its type alone tells."""
    source = "def prepare(**_): pass\nset_to = {'last': print('shows')}.__getitem__\n"
    code = """
import setproctitle
try: setproctitle.setproctitle("first")
except KeyError: print("reached the program")
setproctitle.setproctitle("last")
"""
    assert with_processtitle(source, code).splitlines() == ["shows", "reached the program"]


WARNED = """
import signal, warnings
class SoftTimeLimitExceeded(Exception): pass
def handle(*_): raise SoftTimeLimitExceeded
signal.signal(signal.SIGUSR1, handle)
warnings.warn = lambda *_, **__: signal.raise_signal(signal.SIGUSR1)
try: import setproctitle
except SoftTimeLimitExceeded: print("reached the program")
"""


def test_what_a_signal_handler_raises_while_a_failure_is_told_reaches_the_program(
    with_processtitle: Callable[..., str],
) -> None:
    assert with_processtitle(BROKEN["missing"][0], WARNED) == "reached the program\n"


def test_the_log_of_a_program_at_debug_has_no_record_for_each_title(
    with_processtitle: Callable[..., str],
) -> None:
    source = """
import logging
def prepare(**_): pass
def set_to(title): logging.getLogger("processtitle").debug("set title to %s", title)
"""
    code = "import logging; logging.basicConfig(level='DEBUG')\n{}import setproctitle as s; s.setproctitle('a')"
    assert with_processtitle(source, code.format("")) == ""
    asked_for = "logging.getLogger('processtitle').setLevel('DEBUG')\n"
    assert "set title to a" in with_processtitle(source, code.format(asked_for))


# --- the interpreter's end

AT_EXIT = """
import atexit, os, sys, threading, time
import setproctitle
setproctitle.setproctitle("first")
import processtitle
slept = []
def sleep(seconds):
    slept.append("waited")
    processtitle.go.set()
    thread.join()
thread = threading.Thread(target=setproctitle.setproctitle, args=("inside",), daemon=True)
thread.start()
processtitle.begun.wait(60)
{fork}
time.sleep = sleep
atexit._run_exitfuncs()
setproctitle.setproctitle("after the end")
print(slept, processtitle.left, flush=True)
os._exit(0)
"""
WAITING = """
import threading
begun, go, left = threading.Event(), threading.Event(), []
def prepare(**_): pass
def set_to(title):
    if title == "inside":
        begun.set(); go.wait(60)
    if title != "first": left.append(title)
"""
# It has a thread, which gets the number of the one that was inside.
FORKED = """
if os.fork(): os._exit(os.wait()[1] != 0)
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


@pytest.mark.parametrize(
    ("fork", "out"),
    [("", "['waited'] ['inside']"), (FORKED, "[] []")],
    ids=["in the same process", "in a child that was forked meanwhile"],
)
def test_at_exit_a_thread_inside_a_title_is_waited_for_where_it_lives(
    fork: str, out: str, with_processtitle: Callable[..., str]
) -> None:
    code = AT_EXIT.format(fork=fork)
    assert with_processtitle(WAITING, code, "-W", "ignore").strip() == out


NEVER_LEAVES = """
import atexit, os, signal, threading, time
import setproctitle
signal.alarm(60)  # what hangs dies of SIGALRM
setproctitle.setproctitle("first")
import processtitle
threading.Thread(target=setproctitle.setproctitle, args=("inside",), daemon=True).start()
processtitle.begun.wait(60)
clock = 0
def sleep(seconds):
    global clock
    clock += seconds
time.sleep, time.monotonic = sleep, lambda: clock
atexit._run_exitfuncs()
print(round(clock, 1), flush=True)
os._exit(0)
"""


def test_at_exit_a_thread_that_never_leaves_a_title_is_waited_for_one_second(
    with_processtitle: Callable[..., str],
) -> None:
    assert with_processtitle(WAITING, NEVER_LEAVES) == "1.0\n"


SHUTDOWN = """
import os, sys, threading
import setproctitle
setproctitle.setproctitle("prepared")
aborted = 0
children = []
for number in range(60):
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what an abort says
        sys.setswitchinterval(1e-4)
        def work():
            while True: setproctitle.setproctitle("title")
        for _ in range(4): threading.Thread(target=work, daemon=True).start()
        sys.exit()
    children.append(pid)
    if number % 4 == 3:
        aborted += sum(os.waitpid(pid, 0)[1] != 0 for pid in children)
        children.clear()
print(aborted)
"""


@pytest.mark.slow  # as the two above show what it takes, one by one
def test_threads_that_set_titles_while_the_interpreter_ends_abort_no_process(venv: Venv) -> None:
    assert venv.evaluate(SHUTDOWN, **TITLES) == "0"


# --- where it does not work

# What it raises has last come through a function of another module.
HOOK = """
hook = {"__name__": "hook"}
exec("def find_spec(): raise ImportError('blocked')", hook)
hook["find_spec"]()
"""
BROKEN = {
    "missing": ("raise ImportError('not here')", "ImportError: not here", True),
    "too old": (
        "def prepare(): pass\nset_to = None\n",
        "TypeError: prepare() got an unexpected",
        True,
    ),
    "blocked by an import hook": (
        HOOK,
        "ImportError: blocked",
        True,
    ),
    "failing": (
        "def prepare(**_): raise OSError('no argv')\nset_to = None\n",
        "OSError: no argv",
        False,
    ),
    "failing later": (
        "def prepare(**_): pass\ndef set_to(title): raise OSError('no room')\n",
        "OSError: no room",
        False,
    ),
}
SHOWWARNING_RAISES = (
    "def show(*_, **__): raise RuntimeError\nimport warnings; warnings.showwarning = show\n"
)


@pytest.mark.parametrize(
    ("how", "warned"),
    [
        *((how, "") for how in BROKEN),
        ("missing", "-W error"),
        ("failing later", "showwarning raises"),
    ],
)
def test_a_broken_processtitle_is_named_once_with_what_helps_and_harms_nobody(
    with_processtitle: Callable[..., str], how: str, warned: str
) -> None:
    source, why, mendable = BROKEN[how]
    code = "import setproctitle as s\nfor t in 'abc':\n    s.setproctitle(t)\nassert s.getproctitle() == 'c'"
    if warned == "showwarning raises":
        code = SHOWWARNING_RAISES + code
    said = with_processtitle(source, code, *(["-W", "error"] if warned == "-W error" else []))
    assert said.count("AIRFLOW_SETPROCTITLE_SHIM=titles shows no titles: ") == 1
    assert why in said
    # Where no release of processtitle can be installed, a command to install it does not help.
    if sys.version_info < (3, 10):
        assert "Python 3.10" in said and "pip install" not in said
    else:
        assert ("pip install 'processtitle>=1.3'" in said) == mendable
    if not warned:
        line = 3 if how == "failing later" else 1  # the user's own
        assert said.startswith(f"<string>:{line}: RuntimeWarning: ")


def test_a_failure_is_told_in_any_letters_and_where_nobody_can_be_told(
    with_processtitle: Callable[..., str],
) -> None:
    """Warnings are errors here, so that the line goes past them."""
    source = "def prepare(**_): raise OSError('\\udcff')\nset_to = None\n"
    said = with_processtitle(source, "import setproctitle", "-W", "error")
    assert "OSError: \\udcff" in said
    code = "import sys; sys.stderr = None; import setproctitle; print('ok')"
    assert with_processtitle(source, code, "-W", "error") == "ok\n"


SUBINTERPRETER = """
import sys
import setproctitle
setproctitle.setproctitle("main")
code = "import setproctitle as s; s.setproctitle('sub'); assert s.getproctitle() == 'sub'"
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
print(interpreters.run_string(interpreters.create(), code), file=sys.stderr)
setproctitle.setproctitle("main again")
"""


def test_in_a_subinterpreter_it_says_whose_the_titles_are(
    with_processtitle: Callable[..., str],
) -> None:
    if sys.implementation.name == "pypy":
        pytest.skip("PyPy has no subinterpreters")
    source = (
        "import sys\ndef prepare(**_): pass\ndef set_to(title): sys.stdout.write(title + '\\n')\n"
    )
    out = with_processtitle(source, SUBINTERPRETER)
    assert out.startswith("main\nmain again\n") and "sub\n" not in out
    assert out.count("main interpreter") == 1 and "pip install" not in out
