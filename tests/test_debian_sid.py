"""A Debian sid is made for the newest Pythons from a mirror that may have stood still for weeks."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from compatibility.pythons import APT_GET


@pytest.fixture
def expired(tmp_path: Path) -> dict[str, str]:
    """An environment in which apt has a state of its own and one source, whose Release file has expired."""
    missing = [program for program in ("apt-get", "gpg", "gpgconf") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    suite = tmp_path / "mirror/dists/sid"
    packages = suite / "main/binary-all/Packages"
    packages.parent.mkdir(parents=True)
    packages.touch()
    release = suite / "Release"
    release.write_text(
        "Suite: sid\nCodename: sid\nDate: Mon, 01 Jan 2024 00:00:00 UTC\n"
        "Valid-Until: Mon, 08 Jan 2024 00:00:00 UTC\nComponents: main\nArchitectures: all\n"
        f"SHA256:\n {hashlib.sha256(b'').hexdigest()} 0 main/binary-all/Packages\n"
    )
    # apt looks at the date of signed files only.
    for directory in ("state/lists/partial", "cache/archives/partial", "keys"):
        (tmp_path / directory).mkdir(parents=True, mode=0o700)
    gpg = ["gpg", "--homedir", str(tmp_path / "keys"), "--batch", "--quiet", "--passphrase", ""]
    for action in (
        ["--quick-generate-key", "mirror@example.org"],
        ["--output", str(tmp_path / "mirror.gpg"), "--export"],
        ["--output", str(suite / "InRelease"), "--clearsign", str(release)],
    ):
        subprocess.run([*gpg, *action], check=True)
    subprocess.run(["gpgconf", "--homedir", str(tmp_path / "keys"), "--kill", "all"], check=True)
    (tmp_path / "sources.list").write_text(
        f"deb [signed-by={tmp_path}/mirror.gpg] file:{tmp_path}/mirror sid main\n"
    )
    settings = {
        "Dir::State": tmp_path / "state",
        "Dir::Cache": tmp_path / "cache",
        "Dir::Etc::sourcelist": tmp_path / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::parts": "/dev/null",  # this machine's own configuration
        "APT::Sandbox::User": "root",
    }
    configuration = tmp_path / "apt.conf"
    configuration.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    return {**os.environ, "APT_CONFIG": str(configuration), "LC_ALL": "C.UTF-8"}


def test_a_release_file_that_has_expired_is_refused_by_apt_but_not_by_ours(expired: dict[str, str]) -> None:
    plain, ours = (
        subprocess.run([*program, "update"], capture_output=True, text=True, check=False, env=expired)
        for program in (["apt-get"], APT_GET)
    )
    assert plain.returncode and "expired" in plain.stderr, plain.stderr
    assert ours.returncode == 0, ours.stderr
