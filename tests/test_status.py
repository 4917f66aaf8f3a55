"""`status` tells whether the shim is on here and why, and when it should be on, what mends it."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import site
import stat
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import importlib_metadata
import jsonschema
import pytest
from environments import ROOT, SWITCH, Venv, clean_environ, distribution, uv, write

import airflow_setproctitle_shim as shim
from airflow_setproctitle_shim.diagnosis import state
from airflow_setproctitle_shim.diagnosis.finding import Answer, Finding

# The platform is changed late: under a simulated one the standard library fails to import.
ON_MACOS = """
import sys
from airflow_setproctitle_shim.diagnosis import cli
{change}
sys.platform = "darwin"
sys.exit(cli.main(sys.argv[1:]))
"""
HIDE = """
import pathlib, stat, types
lstat = pathlib.Path.lstat
def hidden(path):
    info = lstat(path)
    if path.name == "airflow_setproctitle_shim.pth":
        return types.SimpleNamespace(st_mode=info.st_mode, st_flags=stat.UF_HIDDEN)
    return info
pathlib.Path.lstat = hidden
"""
SHIM = "airflow_setproctitle_shim"
STARTUP_FILE = f"{SHIM}.pth"


NO_IMPORT_LINES = "sys.version_info = (3, 18, 0, 'final', 0)"


def on_macos(venv: Venv, *arguments: str, change: str = "", **variables: str) -> tuple[int, str]:
    """Run the command line in an interpreter that says it is on macOS; return exit status and output."""
    done = venv.run("-c", ON_MACOS.format(change=change), *arguments, check=False, **variables)
    assert done.stderr == ""
    return done.returncode, done.stdout


def first_ten(text: str) -> str:
    return "\n".join(text.splitlines()[:10])


@pytest.fixture
def mac(make_venv: Callable[..., Venv]) -> Venv:
    return make_venv("setproctitle")


@pytest.fixture
def linux(make_venv: Callable[..., Venv]) -> Venv:
    return make_venv("setproctitle", macos=False)


@pytest.fixture(scope="module")
def damaged_venv(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> tuple[Venv, Path]:
    """An environment where no startup file runs, as none is for this platform, and a copy of its packages."""
    path = tmp_path_factory.mktemp("damaged")
    venv = Venv.make(path / "venv")
    venv.install("--link-mode", "copy", str(wheel), "setproctitle")
    shutil.copytree(venv.site_packages, path / "packages")
    return venv, path / "packages"


@pytest.fixture
def own_venv(damaged_venv: tuple[Venv, Path]) -> Iterator[Venv]:
    """An environment that the test may damage."""
    venv, packages = damaged_venv
    yield venv
    place = venv.site_packages
    shutil.rmtree(place)
    shutil.copytree(packages, place)


def test_off_on_linux_is_fine_and_says_so(linux: Venv) -> None:
    done = linux.run("-m", SHIM, "status")
    assert done.stdout.startswith("off: this is linux")
    assert f"{SWITCH} is not set" in done.stdout


def test_on_says_what_import_runs(mac: Venv) -> None:
    done = mac.run("-m", SHIM, "status")
    assert done.stdout.startswith("on: ")
    assert "replacement.py" in done.stdout


def test_a_finder_that_answers_before_ours_needs_attention(mac: Venv, tmp_path: Path) -> None:
    (tmp_path / "setproctitle.py").touch()
    change = f"""
from importlib.machinery import PathFinder
sys.meta_path.insert(0, type('Other', (), {{'find_spec': lambda *_: PathFinder.find_spec(_[1], [{str(tmp_path)!r}])}})())
"""
    status, output = on_macos(mac, "status", change=change)
    assert status == 1
    assert str(tmp_path / "setproctitle.py") in first_ten(output)


def test_switched_off_on_purpose_is_fine_and_names_the_variable(mac: Venv) -> None:
    status, output = on_macos(mac, "status", **{SWITCH: "Off"})
    assert status == 0
    assert f"{SWITCH} is Off" in first_ten(output)
    assert f"unset {SWITCH}" in first_ten(output)


def drop(venv: Venv) -> None:
    (venv.site_packages / STARTUP_FILE).unlink()


def edit(venv: Venv) -> None:
    (venv.site_packages / STARTUP_FILE).write_text("# nothing\n")


def comment_out(venv: Venv) -> None:
    path = venv.site_packages / STARTUP_FILE
    path.write_text(f"# {path.read_text()}")


def corrupt_record(venv: Venv) -> None:
    [record] = venv.site_packages.glob(f"{SHIM}-*/RECORD")
    record.write_bytes(b'"\xff\0\n,,,\n')


def nothing(venv: Venv) -> None:
    pass


@pytest.mark.parametrize(
    ("damage", "change", "cause", "remedy"),
    [
        (nothing, HIDE, "is hidden by macOS", "chflags -R nohidden"),
        (drop, "", "is missing", "install"),
        (edit, "", "does not switch the shim on", "install"),
        (comment_out, "", "does not switch the shim on", "--force-reinstall"),
        (corrupt_record, "", "something switched it off again", "-v -c pass"),
        (nothing, NO_IMPORT_LINES, "has import lines, which this Python ignores", "--upgrade"),
        (nothing, "", "something switched it off again", "-v -c pass"),
    ],
    ids=[
        "hidden",
        "missing",
        "edited",
        "commented out",
        "corrupt RECORD",
        "Python 3.18",
        "switched off again",
    ],
)
def test_the_first_lines_name_why_it_is_off_on_macos_and_the_next_command(
    own_venv: Venv,
    damage: Callable[[Venv], None],
    change: str,
    cause: str,
    remedy: str,
) -> None:
    damage(own_venv)
    status, output = on_macos(own_venv, "status", change=change)
    assert status == 1
    assert cause in " ".join(first_ten(output).split())
    assert any(line.startswith("  -> ") and remedy in line for line in first_ten(output).splitlines())
    word = cause if cause.startswith(("is ", "has ", "does ")) else "is in order"
    assert re.search(rf"startup file \S*{STARTUP_FILE} {word}", " ".join(output.split()))


def test_the_doctor_tells_the_same(own_venv: Venv) -> None:
    drop(own_venv)
    status, output = on_macos(own_venv, "doctor", "--only", "startup")
    assert status == 1
    assert f"error: {own_venv.site_packages / STARTUP_FILE} is missing" in " ".join(output.split())


@pytest.mark.parametrize("other", [False, True], ids=["no other", "another"])
def test_for_a_hidden_startup_file_a_lasting_remedy_is_named_where_no_sitecustomize_comes_first(
    own_venv: Venv, other: bool, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/sitecustomize.py").touch()
    _, output = on_macos(
        own_venv, "status", change=HIDE, PYTHONPATH=str(tmp_path / "elsewhere") if other else ""
    )
    [remedy] = [line for line in first_ten(output).splitlines() if line.startswith("  -> chflags")]
    lasting = f"-m {SHIM} sitecustomize > {own_venv.site_packages}/sitecustomize.py"
    assert (lasting in remedy) is not other
    if not other:
        subprocess.run(["sh", "-c", remedy.partition("or, for good: ")[2]], check=True, cwd=tmp_path)
        code = "import sys; print(sys.modules['sitecustomize'].startup)"
        assert "startup" in own_venv.evaluate(code)


def test_a_remedy_mends_what_it_says(own_venv: Venv, wheel: Path) -> None:
    drop(own_venv)
    _, output = on_macos(own_venv, "status")
    remedy = next(line[5:] for line in output.splitlines() if line.startswith("  -> "))
    # The command names the package; its wheel stands in for the package index.
    assert remedy.endswith(" airflow-setproctitle-shim") and "--force-reinstall --no-deps" in remedy
    uv(*remedy.replace("airflow-setproctitle-shim", str(wheel)).split()[1:])
    assert (own_venv.site_packages / STARTUP_FILE).exists()


def test_a_directory_that_site_passes_by_is_named_with_the_sitecustomize_command(
    tmp_path: Path, wheel: Path
) -> None:
    venv = Venv.make(tmp_path / "venv")
    target = tmp_path / "target"
    uv("pip", "install", "--quiet", "--python", str(venv.python), "--target", str(target), str(wheel))
    status, output = on_macos(venv, "status", PYTHONPATH=str(target))
    assert status == 1
    assert "where site does not look" in " ".join(first_ten(output).split())
    assert f"sitecustomize > {target}/sitecustomize.py" in first_ten(output)
    (target / "sitecustomize.py").write_text("# mine\n")
    _, output = on_macos(venv, "status", PYTHONPATH=str(target))
    assert f"add to {target}/sitecustomize.py: import {SHIM}; {SHIM}.startup()" in output


@pytest.mark.parametrize("flag", [[], ["-s"]], ids=["read", "left out"])
def test_the_users_site_directory_is_one_that_site_looks_into(
    tmp_path: Path, wheel: Path, flag: list[str]
) -> None:
    code = "import site; print(site.getusersitepackages())"
    environ = clean_environ(PYTHONUSERBASE=str(tmp_path))
    base = getattr(sys, "_base_executable", sys.executable)
    user_site = subprocess.check_output([base, "-c", code], env=environ, text=True).strip()
    uv("pip", "install", "--quiet", "--python", sys.executable, "--target", user_site, str(wheel))
    command = [base, *flag, "-c", ON_MACOS.format(change=f"sys.path.append({user_site!r})"), "status"]
    command[-2] = f"import sys; sys.path.append({user_site!r})" + command[-2]
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True)
    assert ("where site does not look" in done.stdout) is bool(flag), done.stdout + done.stderr


@pytest.mark.parametrize("command", ["status", "doctor"])
@pytest.mark.parametrize("gone", ["setproctitle*", "setproctitle"], ids=["all of it", "its files"])
def test_a_required_setproctitle_deleted_by_hand_is_named_with_the_command_that_brings_it_back(
    own_venv: Venv, command: str, gone: str
) -> None:
    for path in own_venv.site_packages.glob(gone):
        shutil.rmtree(path)
    metadata = own_venv.site_packages / "needy-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: needy\nVersion: 1.0\nRequires-Dist: setproctitle (>=1.1.8)\n"
    )
    done = own_venv.run("-m", SHIM, command, check=False)
    assert done.returncode == 1
    head = first_ten(done.stdout)
    assert "setproctitle is not there, though needy 1.0 requires it" in " ".join(head.split())
    assert "--force-reinstall --no-deps setproctitle" in head


@pytest.mark.parametrize(
    ("value", "extra", "text"),
    [
        ("auto", "", "remembered, not shown"),
        ("titles", "", "not shown: no processtitle installed"),
        ("titles", "titles", "shown in ps by processtitle 1."),
    ],
)
def test_it_says_what_becomes_of_titles(
    make_venv: Callable[..., Venv], value: str, extra: str, text: str
) -> None:
    venv = make_venv("setproctitle", extra=extra)
    [line] = [
        line
        for line in venv.run("-m", SHIM, "status", **{SWITCH: value}).stdout.splitlines()
        if line.startswith("  titles")
    ]
    assert text in line


@pytest.mark.parametrize("platform", ["mac", "linux", "hidden"])
def test_json_follows_the_schema(platform: str, mac: Venv, linux: Venv) -> None:
    change = HIDE if platform == "hidden" else ""
    if platform == "linux":
        output = linux.run("-m", SHIM, "status", "--json").stdout
    else:
        _, output = on_macos(linux if change else mac, "status", "--json", change=change)
    data = json.loads(output)
    jsonschema.validate(data, json.loads((ROOT / "docs/json-schema/status.json").read_text()))
    assert data["schema"] == "status/2"
    assert (data["on"], data["ok"]) == {
        "mac": (True, True),
        "linux": (False, True),
        "hidden": (False, False),
    }[platform]


HOSTILE = """
class Hostile:
    def find_spec(self, name, *_):
        if name in ("setproctitle", "pip"):
            raise RuntimeError("no")
sys.meta_path.insert(0, Hostile())
"""


def test_a_hostile_finder_does_not_hide_the_rest(own_venv: Venv) -> None:
    drop(own_venv)
    _, output = on_macos(own_venv, "status", change=HOSTILE)
    assert f"{STARTUP_FILE} is missing" in " ".join(first_ten(output).split())
    assert "nothing: setproctitle cannot be imported" in output


@pytest.mark.parametrize(
    ("flags", "hidden"),
    [
        ({"st_flags": 0}, False),
        ({"st_flags": stat.UF_HIDDEN}, True),
        ({"st_flags": stat.UF_HIDDEN | stat.UF_NODUMP}, True),
        ({"st_flags": stat.UF_NODUMP}, False),
        ({}, False),
    ],
    ids=["macOS, plain", "macOS, hidden", "macOS, hidden and more", "macOS, other flag", "Linux"],
)
def test_a_hidden_file_is_one_with_macoss_flag(
    monkeypatch: pytest.MonkeyPatch, flags: dict[str, int], hidden: bool
) -> None:
    monkeypatch.setattr(Path, "lstat", lambda _: types.SimpleNamespace(**flags))
    _, wrong = state.startup_file()
    assert any("is hidden by macOS" in flaw.evidence for flaw in wrong) is hidden


@pytest.mark.parametrize("record", ["whole", "corrupt", "gone"])
def test_the_installation_time_is_known_whatever_record_holds(fresh_venv: Venv, record: str) -> None:
    [path] = fresh_venv.site_packages.glob(f"{SHIM}-*/RECORD")
    if record == "corrupt":
        path.write_bytes(b'"\xff\0\n')
    os.utime(path, (1_600_000_000, 1_600_000_000))
    if record == "gone":
        path.unlink()
    code = f"from {SHIM}.diagnosis import state; print(state.installed_at())"
    installed = float(fresh_venv.evaluate(code))
    assert installed > 1_700_000_000 if record == "gone" else installed == 1_600_000_000


@pytest.mark.parametrize("command", ["status", "doctor"])
@pytest.mark.parametrize("content", [b'"\xff\0\n,,,\n', b"a,b\n", b""], ids=["binary", "text", "empty"])
@pytest.mark.parametrize("file", ["RECORD", "METADATA"])
def test_metadata_in_any_state_is_no_bug_of_ours(
    own_venv: Venv, file: str, content: bytes, command: str
) -> None:
    [path] = own_venv.site_packages.glob(f"{SHIM}-*/{file}")
    path.write_bytes(content)
    home = str(own_venv.path / "none")
    done = own_venv.run("-m", SHIM, command, check=False, HOME=home, AIRFLOW_HOME=home)
    assert done.stderr == "" and "please report" not in done.stdout
    assert done.returncode == 0


# --- in this process -----------------------------------------------------------------------------

OURS = "airflow-setproctitle-shim"
PYTHON = shlex.quote(sys.executable)
AGAIN = f"{PYTHON} -m pip install --force-reinstall --no-deps {OURS}"


def is_wrong(evidence: str, remedy: str, *sources: str) -> list[Finding]:
    return [Finding("error", evidence, remedy, sources)]


@pytest.fixture
def startup_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The startup file of a shim that is installed where site looks, with pip beside it."""
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path / "site")])
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.delitem(sys.modules, "setproctitle", raising=False)
    source = (ROOT / "src" / STARTUP_FILE).read_bytes()
    distribution(tmp_path / "site", OURS, {STARTUP_FILE: source, "pip.py": b"", "setproctitle.py": b""})
    return tmp_path / "site" / STARTUP_FILE


def test_a_startup_file_in_order_has_no_flaw(startup_file: Path) -> None:
    assert state.startup_file() == (startup_file, [])


def test_a_package_without_metadata_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_name(name: str) -> NoReturn:
        raise importlib_metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib_metadata.Distribution, "from_name", from_name)
    monkeypatch.setattr(state, "origin", {"pip": "/pip.py"}.get)
    assert state.startup_file() == (None, is_wrong(f"{OURS} is importable but not installed", AGAIN))
    assert state.version("setproctitle") == ""
    assert state.installed_at() == os.stat(state.__file__).st_mtime


def test_without_pip_uv_is_told_to_install(startup_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "origin", {"setproctitle": "/setproctitle.py"}.get)
    assert state.install("x", "--upgrade") == f"uv pip install --python {PYTHON} --upgrade x"
    monkeypatch.setattr(state, "origin", {"pip": "/pip.py"}.get)
    assert state.install("x", "--upgrade") == f"{PYTHON} -m pip install --upgrade x"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        (b"", "does not switch the shim on"),
        (b"# import airflow_setproctitle_shim as s; s.startup()\n", "does not switch the shim on"),
        (b"import airflow_setproctitle_shim\n", "does not switch the shim on"),
    ],
)
def test_a_startup_file_that_does_nothing_is_mended_by_installing_again(
    startup_file: Path, content: bytes | None, said: str
) -> None:
    startup_file.unlink()
    if content is not None:
        startup_file.write_bytes(content)
    assert state.startup_file()[1] == is_wrong(f"{startup_file} {said}", AGAIN)


def test_without_site_no_startup_file_is_run(startup_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {name: getattr(sys.flags, name) for name in dir(sys.flags) if not name.startswith("_")}
    with monkeypatch.context() as patched:
        patched.setattr(sys, "flags", types.SimpleNamespace(**{**flags, "no_site": 1}))
        flaws = state.startup_file()[1]
    said = f"{startup_file} is skipped, as Python was started with -S"
    assert flaws == is_wrong(said, "start Python without -S")


@pytest.mark.parametrize(("version", "ignored"), [((3, 17, 9), False), ((3, 18, 0), True)])
def test_from_python_3_18_on_another_release_is_needed(
    startup_file: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], ignored: bool
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "version_info", version)
        flaws = state.startup_file()[1]
    said = f"{startup_file} has import lines, which this Python ignores"
    assert flaws == is_wrong(said, f"{PYTHON} -m pip install --upgrade {OURS}") * ignored


@pytest.mark.parametrize("there", [False, True])
def test_where_site_does_not_look_a_sitecustomize_helps(
    startup_file: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(site, "getsitepackages", list)
    other = startup_file.with_name("sitecustomize.py")
    remedy = f"{PYTHON} -m {SHIM} sitecustomize > {shlex.quote(str(other))}"
    if there:
        other.touch()
        remedy = f"add to {other}: import {SHIM}; {SHIM}.startup()"
    said = f"{startup_file} lies where site does not look for startup files"
    assert state.startup_file()[1] == is_wrong(said, remedy)


@pytest.mark.parametrize("there", [False, True])
def test_a_hidden_startup_file_is_shown_again(
    startup_file: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(Path, "lstat", lambda _: types.SimpleNamespace(st_flags=stat.UF_HIDDEN))
    monkeypatch.setattr(sys, "path", [str(startup_file.parent)])
    other = startup_file.with_name("sitecustomize.py")
    remedy = f"chflags -R nohidden {shlex.quote(sys.prefix)}"
    if there:
        other.touch()
    else:
        remedy += f"  # or, for good: {PYTHON} -m {SHIM} sitecustomize > {shlex.quote(str(other))}"
    said = f"{startup_file} is hidden by macOS, and Python skips hidden startup files"
    assert state.startup_file()[1] == is_wrong(said, remedy, "python/cpython/issues/113659")


@pytest.mark.parametrize("read", [True, False, None])
def test_the_users_site_is_read_unless_python_was_told_not_to(
    startup_file: Path, monkeypatch: pytest.MonkeyPatch, read: bool | None
) -> None:
    monkeypatch.setattr(site, "getsitepackages", list)
    monkeypatch.setattr(site, "getusersitepackages", lambda: f"{startup_file.parent}/../site")
    monkeypatch.setattr(site, "ENABLE_USER_SITE", read)
    assert state.is_read(startup_file.parent) is bool(read)
    assert not state.is_read(startup_file.parent.parent)


def test_off_and_on_are_told_with_what_comes_next(
    startup_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert state.startup() == Answer("off: this is linux, and setproctitle is dangerous on macOS only")
    monkeypatch.setattr(sys, "platform", "darwin")
    off = "the shim is off though its startup file is in order: something switched it off again"
    look = f"{PYTHON} -v -c pass 2>&1 | grep -i -e shim -e pth"
    assert state.startup() == Answer(f"off: {off}", is_wrong(off, look))
    monkeypatch.setenv(SWITCH, "No")
    said = f"the shim is off, because {SWITCH} is 'No'"
    assert state.startup() == Answer(f"off: {said}", [Finding("note", said, f"unset {SWITCH}")])
    monkeypatch.delenv(SWITCH)
    startup_file.unlink()
    gone = f"{startup_file} is missing"
    assert state.startup() == Answer(f"off: {gone}", is_wrong(gone, AGAIN))

    monkeypatch.setattr(state, "is_active", lambda: True)
    importlib.invalidate_caches()
    said = f"`import setproctitle` runs {startup_file.with_name('setproctitle.py')}, found by a finder before the shim's"
    look = f"{PYTHON} -v -c 'import setproctitle' 2>&1 | grep setproctitle"
    assert state.startup() == Answer("on: but not asked first", is_wrong(said, look))
    monkeypatch.setattr(state, "origin", {"setproctitle": shim.REPLACEMENT}.get)
    assert state.startup() == Answer("on: `import setproctitle` gets the shim's safe module")


def test_the_newest_record_tells_when_it_was_installed(startup_file: Path) -> None:
    for number, time in (("0.9", 1_600_000_000), ("1.0", 1_500_000_000)):
        record = write(startup_file.parent / f"{SHIM}-{number}.dist-info/RECORD", "")
        os.utime(record, (time, time))
    os.utime(startup_file.parent / f"{OURS.replace('-', '_')}-1.0.dist-info", (1, 1))
    assert state.installed_at() == 1_600_000_000


@pytest.mark.parametrize(
    ("native", "said"),
    [
        ("1.2.10", "1.2.10 (safe on macOS)"),
        ("1.3", "1.3 (crashes after fork on macOS)"),
        ("1.3.0rc1", "1.3.0rc1 (crashes after fork on macOS)"),
        ("2", "2 (crashes after fork on macOS)"),
        ("", "not installed"),
    ],
)
@pytest.mark.parametrize(
    ("switch", "shown", "titles"),
    [
        ("", "1.0", f"remembered, not shown; {SWITCH}=titles shows them"),
        ("Titles", "1.0", "shown in ps by processtitle 1.0"),
        ("titles", "", "not shown: no processtitle installed"),
    ],
)
def test_the_facts_are_told_in_words(
    startup_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    native: str,
    said: str,
    switch: str,
    shown: str,
    titles: str,
) -> None:
    versions = {"setproctitle": native, "processtitle": shown}
    monkeypatch.setattr(state, "version", versions.get)
    if switch:
        monkeypatch.setenv(SWITCH, switch)
    assert state.facts() == {
        "variable": f"{SWITCH} is {switch or 'not set'}",
        "python": f"{sys.version.split()[0]} on {sys.platform}  {sys.executable}",
        "startup file": f"{startup_file} is in order",
        "setproctitle": said,
        "titles": titles,
        "import runs": str(startup_file.with_name("setproctitle.py")),
    }
    startup_file.unlink()
    monkeypatch.setattr(state, "origin", {}.get)
    monkeypatch.setattr(site, "getsitepackages", list)
    facts = state.facts()
    elsewhere = f"{startup_file} lies where site does not look for startup files"
    assert facts["startup file"] == f"{startup_file} is missing; {elsewhere}"
    assert facts["import runs"] == "nothing: setproctitle cannot be imported"


def test_the_version_is_the_metadatas(startup_file: Path) -> None:
    assert state.version(OURS) == "1.0"
    distribution(startup_file.parent, "nameless", {}, "2.0")
    write(startup_file.parent / "nameless-2.0.dist-info/METADATA", "")
    assert (state.version("nameless"), state.version("not-there")) == ("", "")


# --- who uses it ---------------------------------------------------------------------------------

WHO = "is this the environment your workers run in?"


def test_an_environment_where_nobody_uses_setproctitle_is_told_by_status_and_doctor(fresh_venv: Venv) -> None:
    for command in ("status", "doctor"):
        done = fresh_venv.run("-m", SHIM, command, check=False)
        assert f"nothing installed here uses setproctitle: {WHO}" in " ".join(done.stdout.split())
        assert done.returncode == 1 and "Nothing needs attention" not in done.stdout


def test_where_setproctitle_is_installed_for_nobody_known_it_may_be_for_ones_own_code(mac: Venv) -> None:
    done = mac.run("-m", SHIM, "status")
    assert done.returncode == 0 and WHO in " ".join(done.stdout.split())


def test_status_is_quick(mac: Venv) -> None:
    """It parses no source file and loads no module that takes long: what is left is Python's start."""
    code = f"import sys; from {SHIM}.diagnosis import cli; cli.main(['status']); print(*sys.modules)"
    loaded = set(mac.evaluate(code).splitlines()[-1].split())
    assert "importlib_metadata" in loaded
    assert not {"http.client", "multiprocessing.context", "ssl", "asyncio"} & loaded
