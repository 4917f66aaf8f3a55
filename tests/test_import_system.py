"""Others who hook into the import system work beside the shim."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from environments import STAND_IN, SWITCH, Venv, clean_environ, uv

MakeVenv = Callable[..., Venv]

WHO = "import setproctitle; print(setproctitle.__file__)"


# Each program defines hook(), which puts itself into the import system, and check(first): whether it was first.
BESIDE = {
    "wrapt's post-import hook": """
import wrapt
seen = []
def hook():
    wrapt.register_post_import_hook(lambda module: seen.append(module.__file__), "setproctitle")
def check(first):
    # A hook that was there before activate() is passed over: the shim goes in front of every finder.
    assert seen == ([] if first else [shim.REPLACEMENT]), seen
""",
    "wrapt's wrapping of a function": """
import wrapt
calls = []
def wrap(wrapped, instance, args, kwargs):
    calls.append(args)
    return wrapped(*args, **kwargs)
def patch(module):
    wrapt.wrap_function_wrapper(module, "setproctitle", wrap)
def hook():
    wrapt.register_post_import_hook(patch, "setproctitle")
def check(first):
    from setproctitle import getproctitle, setproctitle
    setproctitle("title")
    assert calls == ([] if first else [("title",)]) and getproctitle() == "title"
""",
    "a finder that asks the other finders": """
class Delegating:
    def find_spec(self, name, path=None, target=None):
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        return next((spec for spec in others if spec is not None), None)
def hook():
    sys.meta_path.insert(0, Delegating())
def check(first):
    pass
""",
    "a finder for the path's end": """
from importlib.machinery import PathFinder
def hook():
    sys.meta_path.append(PathFinder)
def check(first):
    pass
""",
}

BESIDE_US = """
import sys
import airflow_setproctitle_shim as shim
exec(sys.argv[1])
first = sys.argv[2] == "they first"
for step in [hook, shim.activate] if first else [shim.activate, hook]:
    step()
import setproctitle
assert setproctitle.__file__ == shim.REPLACEMENT
check(first)
shim.deactivate()
import setproctitle
assert setproctitle.__file__ != shim.REPLACEMENT
print("ok")
"""

ORDERS = pytest.mark.parametrize("order", ["they first", "we first"])


@ORDERS
@pytest.mark.parametrize("name", BESIDE)
def test_others_who_hook_imports_work_beside_the_shim(name: str, order: str, make_venv: MakeVenv) -> None:
    linux = make_venv("setproctitle", macos=False)
    assert linux.run("-c", BESIDE_US, BESIDE[name], order).stdout == "ok\n"


def entry_point(venv: Venv, group: str, line: str) -> None:
    """Declare an entry point in the environment, by a distribution made for it."""
    metadata = venv.site_packages / "declared-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: declared\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{line}\n")


def in_order(venv: Venv, startup_file: str, order: str) -> None:
    """Have site read another's startup files before or after ours, by their names."""
    for suffix in (".pth", ".start"):
        path = venv.site_packages / (startup_file + suffix)
        if path.exists() and order == "they first":
            path.rename(path.with_name(f"_{path.name}"))  # before the simulation, too


@pytest.mark.slow
@ORDERS
def test_autowrapts_hooks_see_the_replacement(order: str, fresh_venv: Venv) -> None:
    fresh_venv.install("autowrapt>=2", "setproctitle")
    in_order(fresh_venv, "autowrapt-init", order)
    entry_point(fresh_venv, "patches", "setproctitle = patches:seen")
    (fresh_venv.site_packages / "patches.py").write_text(
        "def seen(module):\n    print('seen', module.__file__)\n"
    )
    seen, served = fresh_venv.evaluate(WHO, AUTOWRAPT_BOOTSTRAP="patches").splitlines()
    assert served.endswith("replacement.py")
    assert seen == f"seen {served}"


@pytest.mark.slow
@ORDERS
def test_setuptools_and_an_editable_setproctitle_do_not_get_in_front(
    order: str, fresh_venv: Venv, tmp_path: Path
) -> None:
    fork = tmp_path / "fork"
    (fork / "src/setproctitle").mkdir(parents=True)
    (fork / "src/setproctitle/__init__.py").touch()
    (fork / "pyproject.toml").write_text(
        "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n"
        "[project]\nname = 'setproctitle'\nversion = '9'\n"
    )
    # "strict" makes setuptools install a finder instead of a path.
    fresh_venv.install("setuptools", "--config-settings", "editable_mode=strict", "-e", str(fork))
    in_order(fresh_venv, "distutils-precedence", order)
    in_order(fresh_venv, "__editable__.setproctitle-9", order)
    assert fresh_venv.evaluate(WHO).endswith("replacement.py")
    assert not fresh_venv.evaluate(WHO, **{SWITCH: "off"}).endswith("replacement.py")
    code = "import sys; from importlib.metadata import version; import distutils; print(version('setproctitle'), distutils.__file__)"
    version, distutils = fresh_venv.evaluate(code).split()
    assert version == "9" and "_distutils" in distutils


@pytest.mark.slow
@ORDERS
def test_datahubs_patch_finds_nothing_to_break(order: str, fresh_venv: Venv, tmp_path: Path) -> None:
    uv("pip", "install", "-q", "--no-deps", "--target", str(tmp_path / "target"), "acryl-datahub==1.7.0.17")
    package = fresh_venv.site_packages / "datahub"
    package.mkdir()
    (package / "__init__.py").touch()
    (tmp_path / "target/datahub/_setproctitle_patch.py").rename(package / "_setproctitle_patch.py")
    # Their wheel has this file at a place where site does not look. Only it is shown Darwin.
    (fresh_venv.site_packages / "datahub_patch.pth").write_text(
        "import platform, sys; platform.system = lambda: 'Darwin'; real, sys.platform = sys.platform, 'darwin'; "
        "import datahub._setproctitle_patch; sys.platform = real\n"
    )
    in_order(fresh_venv, "datahub_patch", order)
    code = (
        "import os, setproctitle as s\npid = os.fork()\n"
        "if not pid:\n    s.setproctitle('child'); os._exit(0)\n"
        "print(os.waitpid(pid, 0)[1], s.getproctitle() == '', s.__file__)"
    )
    status, empty, file = fresh_venv.evaluate(code, PYTHONPATH=str(STAND_IN)).split()
    assert status == "0"
    assert empty == "True"  # Their functions stay in either order: they do nothing.
    # They import the native module if they are first.
    assert (
        Path(file).parent == STAND_IN / "setproctitle" if order == "they first" else "replacement.py" in file
    )


@pytest.mark.slow
@pytest.mark.parametrize("venv", ["mac", "linux"])
def test_opentelemetrys_instrumentation_runs_beside_the_shim(venv: str, make_venv: MakeVenv) -> None:
    packages = ("setproctitle", "opentelemetry-distro", "opentelemetry-instrumentation-logging")
    environment = make_venv(*packages, macos=venv == "mac")
    program = "import sys, setproctitle; print('opentelemetry.instrumentation.logging' in sys.modules, setproctitle.__file__)"
    if venv == "linux":  # Here they are first: their sitecustomize runs before we are switched on.
        program = "import airflow_setproctitle_shim as shim; shim.activate()\n" + program
    done = subprocess.run(
        [str(environment.path / "bin/opentelemetry-instrument"), str(environment.python), "-c", program],
        env=clean_environ(
            OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none", OTEL_LOGS_EXPORTER="none"
        ),
        capture_output=True,
        text=True,
        check=True,
    )
    instrumented, file = done.stdout.split()
    assert instrumented == "True"
    assert file.endswith("replacement.py")


EMBEDDING = """
#include <Python.h>

int main(int argc, char **argv) {
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    PyConfig_SetBytesString(&config, &config.program_name, argv[1]);
    for (int round = 0; round < 2; round++) {
        PyStatus status = Py_InitializeFromConfig(&config);
        if (PyStatus_Exception(status)) return 2;
        if (PyRun_SimpleString(argv[2])) return 3;
        if (Py_FinalizeEx()) return 4;
    }
    PyConfig_Clear(&config);
    return 0;
}
"""


def test_an_embedded_interpreter_serves_the_replacement_each_time_it_is_initialised(
    make_venv: MakeVenv, tmp_path: Path
) -> None:
    mac = make_venv("setproctitle")
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    (tmp_path / "embedding.c").write_text(EMBEDDING)
    config = Path(sysconfig.get_config_var("BINDIR")) / f"python{sysconfig.get_python_version()}-config"
    if not config.exists():
        pytest.skip("this Python came without what embeds it")
    options = subprocess.run(
        [str(config), "--embed", "--cflags", "--ldflags"], capture_output=True, text=True, check=True
    ).stdout.split()
    library = f"-Wl,-rpath,{sysconfig.get_config_var('LIBDIR')}"
    command = ["gcc", "-o", "embedding", "embedding.c", *options, library, "-O0"]
    subprocess.run(command, cwd=tmp_path, check=True)
    served = subprocess.run(
        [str(tmp_path / "embedding"), str(mac.python), WHO],
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.rpartition("/")[2] for line in served.stdout.split()] == ["replacement.py"] * 2
