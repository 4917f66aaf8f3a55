"""startup() obeys the platform and the variable, tried in this process; test_startup.py has the real thing."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from environments import SWITCH

import airflow_setproctitle_shim as shim
from airflow_setproctitle_shim.stderr import say


@pytest.fixture(autouse=True)
def mac(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process believes to run on a Mac, with the variable unset, and leaves the shim off."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delenv(SWITCH, raising=False)
    sys.modules.pop("setproctitle", None)
    yield
    shim.deactivate()


@pytest.mark.parametrize("platform", ["linux", "win32", "cygwin", "ios", "DARWIN"])
def test_other_platforms_stay_off_whatever_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], platform: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for value in ("on", "titles", "maybe"):
        monkeypatch.setenv(SWITCH, value)
        shim.startup()
    assert not shim.is_active()
    assert capfd.readouterr() == ("", "")


def test_without_the_variable_it_is_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shim.finder, "started", False)
    shim.startup()
    assert shim.is_active()
    assert shim.finder.started is True  # or Airflow's entry point would say that it was late
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("value", ["", "auto", "on", "1", "true", "yes", "titles", " ON\n"])
def test_on_is_on(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], value: str) -> None:
    monkeypatch.setenv(SWITCH, value)
    shim.startup()
    assert shim.is_active()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("value", ["off", "0", "false", "no", "disable", "disabled", "\tOff "])
def test_off_is_off(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], value: str) -> None:
    monkeypatch.setenv(SWITCH, value)
    shim.startup()
    assert not shim.is_active()
    assert capfd.readouterr() == ("", "")


def test_anything_else_is_on_and_said_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SWITCH, " Maybe ")
    shim.startup()
    shim.startup()
    assert shim.is_active()
    assert capfd.readouterr().err == (
        "airflow-setproctitle-shim: AIRFLOW_SETPROCTITLE_SHIM='maybe' is not one of auto, on, 1, true, yes, "
        "titles, off, 0, false, no, disable, disabled; it is taken as 'auto'\n"
    )


def test_anything_else_is_on_without_a_stderr_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "maybe")
    monkeypatch.setattr(sys, "stderr", None)
    shim.startup()
    assert shim.is_active()


def test_the_public_names_are_these() -> None:
    assert shim.__all__ == ["activate", "deactivate", "is_active", "startup"]


def test_what_cannot_be_encoded_is_said_all_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    say("\udcff.py")
    assert capfd.readouterr().err == "airflow-setproctitle-shim: \\udcff.py\n"
