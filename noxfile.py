"""One suite on every Python: `nox -l` lists the sessions, `nox -s tests-3.13` runs one.

What is not on PATH is put into a directory by tools/pythons.sh.
"""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["lint", "tests-3.11"]

PROJECT = nox.project.load_toml("pyproject.toml")


def install(session: nox.Session, *groups: str) -> None:
    """Install the package with its extra `test` and the dependency groups."""
    session.install(".[test]", *nox.project.dependency_groups(PROJECT, *groups))


@nox.session(python=nox.project.python_versions(PROJECT))
def tests(session: nox.Session) -> None:
    """The fast suite."""
    install(session)
    session.run("pytest", *session.posargs)


@nox.session(name="tests-pypy", python="pypy3")
def tests_pypy(session: nox.Session) -> None:
    """The fast suite, as far as PyPy has the packages."""
    tests(session)


@nox.session
def slow(session: nox.Session) -> None:
    """Real systems: Airflow, Celery, installers, scanners. As root, with PostgreSQL and Redis."""
    install(session, "slow", "macos-code")
    # Tests use uv as users do, outside of this session's environment.
    ours = {"UV_PROJECT_ENVIRONMENT": None, "UV_PYTHON": None, "VIRTUAL_ENV": None}
    session.run("pytest", "-m", "slow", *session.posargs, env=ours)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and types."""
    install(session, "lint", "macos-code")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def bench(session: nox.Session) -> None:
    """What a start, an import and a call cost, and whether that is too much. With valgrind."""
    session.install("pip")
    session.run("python", "benchmarks/run.py", "--check", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """The sdist and the wheel, as a release has them."""
    session.run("tools/build.sh", *session.posargs, external=True)
