"""Programs see a Mac in each of their processes, and what the simulation lacks cannot be overlooked."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import mac
from support.environments import Venv, clean_environ, distribution, write
from support.mac.simulated_mac import ONLY_A_MAC_HAS
from support.processes import free_port, running, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="this is a Mac")

MakeVenv = Callable[..., Venv]

# Each process of it prints how it was started, the platform and the kernel.
FAMILY = """
import multiprocessing, os, platform, subprocess, sys

def seen(how):
    assert platform.system() == os.uname().sysname
    print(how, sys.platform, os.uname().sysname, flush=True)

if __name__ == "__main__":
    if len(sys.argv) > 1:
        seen(sys.argv[1])
        sys.exit()
    for how in ("fork", "spawn", "forkserver"):
        child = multiprocessing.get_context(how).Process(target=seen, args=[how])
        child.start()
        child.join()
    subprocess.run([sys.executable, "-E", "-s", __file__, "subprocess"], check=True)
    subprocess.run(f"'{sys.executable}' '{__file__}' shell", shell=True, check=True)
    os.execv(sys.executable, [sys.executable, __file__, "exec"])
"""


def test_each_process_of_a_program_sees_a_mac(make_venv: MakeVenv, tmp_path: Path) -> None:
    program = write(tmp_path / "family.py", FAMILY)
    lines = make_venv().run(str(program)).stdout.splitlines()
    ways = ("fork", "spawn", "forkserver", "subprocess", "shell", "exec")
    assert lines == [f"{way} darwin Darwin" for way in ways]


def test_the_standard_library_takes_a_macs_way_and_works(make_venv: MakeVenv) -> None:
    code = """
import json, multiprocessing, sysconfig, urllib.request
print(multiprocessing.get_start_method(), multiprocessing.get_all_start_methods())
facts = [urllib.request.getproxies(), urllib.request.proxy_bypass("example.org")]
print(json.dumps([*facts, bool(sysconfig.get_config_vars())]))
"""
    environ = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
    methods, facts = make_venv().run("-c", code, **environ).stdout.splitlines()
    assert methods == "spawn ['spawn', 'fork', 'forkserver']"
    assert json.loads(facts) == [{}, False, True]


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="psutil does not load in PyPy")
def test_what_has_linuxs_compiled_parts_and_would_import_a_macs_works(make_venv: MakeVenv) -> None:
    code = "import psutil, sys; print(psutil.Process().is_running(), psutil.LINUX, sys.platform)"
    assert make_venv("psutil").evaluate(code) == "True True darwin"


@pytest.mark.slow
def test_a_gunicorn_that_replaces_itself_sees_a_mac(make_venv: MakeVenv, tmp_path: Path) -> None:
    config = write(
        tmp_path / "gunicorn.conf.py",
        'import sys\ndef on_starting(_): print("SEES", sys.platform, flush=True)\n',
    )
    write(tmp_path / "wsgi.py", "def application(environ, start_response): ...\n")
    venv, log, pid_file = make_venv("gunicorn==23.0.0"), tmp_path / "log.txt", tmp_path / "pid"
    options = ["-c", str(config), "-b", f"127.0.0.1:{free_port()}", "-p", str(pid_file)]
    command = [*venv.command, "-m", "gunicorn", *options, "wsgi:application"]
    with running(command, log, clean_environ(), cwd=tmp_path) as master:
        wait_for("a master", pid_file.exists, 60)
        master.send_signal(signal.SIGUSR2)
        wait_for("another master", pid_file.with_name("pid.2").exists, 60)
        wait_for("its word", lambda: log.read_text().count("SEES") == 2, 60)
        assert log.read_text().count("SEES darwin") == 2
        os.kill(int(pid_file.with_name("pid.2").read_text()), signal.SIGTERM)


# --- what is forgotten


@pytest.mark.parametrize("name", ONLY_A_MAC_HAS)
def test_who_asks_for_what_only_a_mac_has_is_ended(name: str, make_venv: MakeVenv) -> None:
    code = f"import contextlib\nwith contextlib.suppress(BaseException): import _some_{name}_part"
    done = make_venv().run("-c", code, check=False)
    assert done.returncode == -signal.SIGABRT
    assert done.stderr == f"{mac.NOT_PLAYED} _some_{name}_part\n"


@pytest.mark.parametrize("asks", ['sys.platform == "darwin"', "platform.system() == 'Darwin'"])
@pytest.mark.parametrize(
    ("name", "tag", "forgotten"),
    [
        ("strange", "cp311-cp311-manylinux_2_17_x86_64", True),
        ("strange", "cp311-cp311-linux_x86_64", True),
        ("strange", "py3-none-any", False),
        ("setproctitle", "cp311-cp311-manylinux_2_17_x86_64", False),
    ],
)
def test_a_package_that_nobody_has_looked_at_is_refused(
    name: str, tag: str, forgotten: bool, asks: str, tmp_path: Path
) -> None:
    files = {f"{name}/__init__.py": f"import platform, sys\nmac = {asks}\n".encode()}
    write(distribution(tmp_path, name, files) / "WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
    if forgotten:
        with pytest.raises(mac.Forgotten, match=r"strange .* a row"):
            mac.play_in(tmp_path)
        assert not (tmp_path / mac.STARTUP_FILE).exists()
    else:
        mac.play_in(tmp_path)
        assert (tmp_path / mac.STARTUP_FILE).exists()


def test_a_copy_of_a_package_that_sees_linux_does_so_and_an_installers_cache_is_left_alone(
    tmp_path: Path,
) -> None:
    source = "import sys\nlinux = sys.platform.startswith('linux')\n"
    cached = write(tmp_path / "cache/__init__.py", source)
    copy = tmp_path / "site/ray/thirdparty_files/psutil/__init__.py"
    copy.parent.mkdir(parents=True)
    os.link(cached, copy)
    mac.play_in(tmp_path / "site")
    assert "'linux'.startswith" in copy.read_text() and cached.read_text() == source


def test_an_environment_that_is_left_sees_linux_again(fresh_venv: Venv) -> None:
    see = "import sys; print(sys.platform)"
    assert fresh_venv.evaluate(see) == "darwin"
    mac.leave(fresh_venv.site_packages)
    assert fresh_venv.evaluate(see) == "linux"
