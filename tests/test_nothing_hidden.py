"""From interpreter start to the hundredth title: what is done is on a short list, and nothing else is.

Two witnesses: Python's audit events, and on Linux the kernel's system calls. Each is shown to see.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import mac
from support.environments import ROOT, Venv, clean_environ

pytestmark = pytest.mark.skipif(
    sys.implementation.name == "pypy",
    reason="PyPy starts with other events and calls than the list has",
)

OURS = {
    "airflow_setproctitle_shim.pth",
    "airflow_setproctitle_shim/__init__.py",
    "airflow_setproctitle_shim/replacement.py",
}
THE_TESTS = {*mac.FILES, "audit_witness.py", "aaa_audit.pth", "program.py"}
OTHERS = {
    "_virtualenv.py",
    "_virtualenv.pth",
    "stdlib: sitecustomize.py",
}  # virtualenv's, uv's and Debian's

# Everything that may happen, by audit event. What is not here must not.
ALLOWED: dict[str, set[str] | None] = {
    "import": {
        "airflow_setproctitle_shim",
        "setproctitle",
        "simulated_mac",  # by the tests
        *("sitecustomize", "usercustomize"),  # by site
        "pwd",  # by site, where HOME is not set
        "apport_python_hook",  # by Debian's sitecustomize
    },
    "open": OURS | THE_TESTS | OTHERS,
    "compile": OURS | THE_TESTS | OTHERS | {"<string>"},  # <string>: a startup file's line
    "exec": OURS | THE_TESTS | OTHERS | {"<string>"},
    "marshal.loads": None,  # bytecode of a module that "open" names
    "os.listdir": None,  # the import system looks into directories on the path
    "cpython.run_file": None,
}

PROGRAM = """
import sys, setproctitle
for number in range(100):
    setproctitle.setproctitle(f"title {number}")
    setproctitle.setthreadtitle(f"thread {number}")
assert setproctitle.getproctitle() == "title 99" and setproctitle.getthreadtitle() == "thread 99"
assert setproctitle.__spec__.origin.endswith("replacement.py")
if "report" in sys.argv:
    sys.modules["audit_witness"].report()
"""

# Before 3.12 only the kernel witness sees threads.
THREAD = "_thread.start_new_thread" if sys.version_info >= (3, 12) else None

OFFENCE = "bbb_offence.pth"

# What a startup file must not do, the audit event that shows it, and the system call if there is one.
OFFENCES = [
    ("open('offence', 'w').close()", "open", '"offence", O_WRONLY'),
    ("open('/etc/hosts').close()", "open", '"/etc/hosts", O_RDONLY'),
    ("import json", "import", None),
    ("import _socket; _socket.socket()", "socket.__new__", r"socket\("),
    ("import os; os.system('true')", "os.system", "clone|fork"),
    ("import os; os.fork() or os._exit(0)", "os.fork", "clone|fork"),
    ("import _thread; _thread.start_new_thread(id, (0,))", THREAD, "clone"),
    ("import os; os.environ['OFFENCE'] = '1'", "os.putenv", None),
    ("import _ctypes; _ctypes.dlopen(None, 0)", "ctypes.dlopen", None),
]


@pytest.fixture(scope="module")
def innocent(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Venv:
    """A simulated Mac whose first startup file installs the audit witness; bytecode is written already."""
    venv = Venv.make(tmp_path_factory.mktemp("watched") / "venv")
    venv.unpack(wheel)
    venv.simulate_macos()
    shutil.copy(ROOT / "tests/support/audit_witness.py", venv.site_packages)
    (venv.site_packages / "aaa_audit.pth").write_text("import audit_witness\n")
    (venv.site_packages / "program.py").write_text(PROGRAM)
    venv.run(str(venv.site_packages / "program.py"))
    return venv


@pytest.fixture
def watched(innocent: Venv) -> Iterator[Venv]:
    """The same, which the test may let commit an offence."""
    yield innocent
    (innocent.site_packages / OFFENCE).unlink(missing_ok=True)


def audited(venv: Venv) -> list[tuple[str, str]]:
    """What the program did that is not on the list."""
    events = json.loads(
        venv.run(str(venv.site_packages / "program.py"), "report").stdout.splitlines()[-1]
    )
    assert ["import", "airflow_setproctitle_shim"] in events and [
        "import",
        "setproctitle",
    ] in events
    return [
        (event, what)
        for event, what in events
        if event not in ALLOWED or ((listed := ALLOWED[event]) is not None and what not in listed)
    ]


def test_nothing_is_done_that_is_not_on_the_list(watched: Venv) -> None:
    assert audited(watched) == []


@pytest.mark.parametrize(("offence", "event", "_"), [offence for offence in OFFENCES if offence[1]])
def test_the_audit_witness_sees(watched: Venv, offence: str, event: str, _: object) -> None:
    (watched.site_packages / OFFENCE).write_text(f"import sys; exec({offence!r})\n")
    assert event in [seen for seen, what in audited(watched) if what != OFFENCE]


STDLIB = Path(sysconfig.get_path("stdlib"))
CALLS = (  # ?: not every architecture has each
    "?execve,?execveat,?fork,?vfork,?clone,?clone3,?socket,?connect,?bind,?open,?openat,?creat,?write,"
    "?pwrite64,?writev,?rename,?renameat,?renameat2,?unlink,?unlinkat,?mkdir,?mkdirat,?link,?linkat,"
    "?symlink,?symlinkat,?chmod,?fchmodat"
)
OPENING = re.compile(
    r'(?:openat\(AT_FDCWD, |open\()"(?P<path>[^"]*)", (?P<flags>[A-Z_|]+).* = (?P<result>-?\d+)'
)


@pytest.fixture
def strace() -> str:
    program = shutil.which("strace")
    if not program or subprocess.run([program, "-o", "/dev/null", "true"], check=False).returncode:
        pytest.skip("strace is not installed or may not trace")
    return program


def calls(strace: str, venv: Venv, *arguments: str) -> list[str]:
    """The interpreter's system calls, after the one that starts it."""
    log = venv.path / "strace.log"
    command = [strace, "-f", "-qq", "-s300", f"-etrace={CALLS}", f"-o{log}", str(venv.python)]
    # Without HOME, Python itself asks the system where it is.
    environ = clean_environ(HOME=str(venv.path))
    subprocess.run([*command, *arguments], env=environ, cwd=venv.path, check=True, timeout=300)
    first, *rest = [line.partition(" ")[2].strip() for line in log.read_text().splitlines()]
    assert first.startswith("execve(")
    return rest


def traced(strace: str, venv: Venv) -> list[str]:
    """The program's system calls that are neither the bare interpreter's nor a file read that may be."""
    bare = calls(strace, venv, "-S", "-c", "pass")
    seen = calls(strace, venv, str(venv.site_packages / "program.py"))
    assert any("airflow_setproctitle_shim.pth" in call for call in seen)
    return [call for call in seen if call not in bare and not harmless(call, venv)]


def harmless(call: str, venv: Venv) -> bool:
    """Whether a call only looks for a file, or reads one of Python's, ours or the test's."""
    opening = OPENING.match(call)
    if opening is None:
        return call.startswith(("+++ exited", "--- SIG"))
    if set(opening["flags"].split("|")) - {"O_RDONLY", "O_CLOEXEC", "O_NONBLOCK", "O_DIRECTORY"}:
        return False
    # strace writes what is not ASCII as octal numbers.
    path = Path(os.fsdecode(opening["path"].encode().decode("unicode_escape").encode("latin-1")))
    if int(opening["result"]) < 0 or path.is_dir() or STDLIB in path.parents:
        return True
    if venv.site_packages not in path.parents:
        return path == venv.path / "pyvenv.cfg"
    source = re.sub(
        r"__pycache__/(\w+)\.[\w.-]+", r"\1.py", str(path.relative_to(venv.site_packages))
    )
    return source in OURS | THE_TESTS | OTHERS


def test_the_kernel_sees_no_process_no_socket_no_write_and_no_file_of_others(
    strace: str, watched: Venv
) -> None:
    assert traced(strace, watched) == []


@pytest.mark.parametrize(("offence", "_", "call"), [offence for offence in OFFENCES if offence[2]])
def test_the_kernel_witness_sees(
    strace: str, watched: Venv, offence: str, _: object, call: str
) -> None:
    (watched.site_packages / OFFENCE).write_text(f"import sys; exec({offence!r})\n")
    assert any(re.search(call, seen) for seen in traced(strace, watched))
