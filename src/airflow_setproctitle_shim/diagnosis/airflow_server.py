"""What Airflow itself tells: its settings, where its logs lie, and why its API refuses workers."""

from __future__ import annotations

import configparser
import contextlib
import glob
import os
import re
from pathlib import Path

from .deaths import looked_at
from .finding import Answer, Finding
from .log_file import Logs


def expand(path: str) -> Path:
    """Return a path with ~ and variables resolved, as Airflow does; those that are not set are left as they are."""
    home = os.environ.get("AIRFLOW_HOME") or "~/airflow"
    path = re.sub(r"\$?\{AIRFLOW_HOME\}|\$AIRFLOW_HOME\b", lambda _: home, path)
    return Path(os.path.expanduser(os.path.expandvars(path)))


def setting(section: str, key: str) -> dict[str, str]:
    """Return the values that the environment and airflow.cfg give, by where they stand, Airflow's choice first."""
    variable = f"AIRFLOW__{section}__{key}".upper()
    file = expand(os.environ.get("AIRFLOW_CONFIG") or "$AIRFLOW_HOME/airflow.cfg")
    parser = configparser.RawConfigParser(strict=False)
    with contextlib.suppress(OSError, configparser.Error):  # What was parsed before an error is kept.
        parser.read_string(file.read_bytes().decode("utf-8-sig", "replace") if file.is_file() else "")
    values = {variable: os.environ.get(variable), str(file): parser.get(section, key, fallback="")}
    return {where: value for where, value in values.items() if value}


def default_logs() -> list[Path]:
    """Return where Airflow's logs lie: its log folder, and what `airflow ... > standalone.log` made."""
    home = glob.escape(str(expand("$AIRFLOW_HOME")))  # glob, not Path.glob(): it raises nothing
    files = (path for end in ("log", "err", "out") for path in sorted(glob.glob(f"{home}/*.{end}")))
    folder = next(iter(setting("logging", "base_log_folder").values()), "$AIRFLOW_HOME/logs")
    return [expand(folder), *map(Path, files)]


def execution_api(logs: Logs) -> Answer:
    """Return whether the execution API refused workers, and where the secret is set that they must share."""
    answer = Answer(looked_at(logs), read=logs.read)
    if count := sum(sum(refused.values()) for refused in logs.refused.values()):
        keys = ("jwt_secret", "jwt_secret_cmd", "jwt_secret_secret")
        places = " and ".join(place for key in keys for place in setting("api_auth", key))
        state = f"is set in {places}; every component must see the same, and the same time of day"
        state = state if places else "is set nowhere, so every component makes up its own"
        evidence = f"401 of the execution API to workers: {count}; [api_auth] jwt_secret {state}"
        remedy = "export AIRFLOW__API_AUTH__JWT_SECRET=... with one value for all components; compare clocks"
        sources = ("apache/airflow/issues/49871", "apache/airflow/issues/51235")
        details = tuple(f"{program}: first at {refused.first}" for program, refused in logs.refused.items())
        answer.findings.append(Finding("warning", evidence, remedy, sources, details, {"count": count}))
    return answer
