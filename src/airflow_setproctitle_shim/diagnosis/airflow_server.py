"""What Airflow itself tells: its settings, where its logs lie, its health page, and why its API refuses workers."""

from __future__ import annotations

import configparser
import contextlib
import glob
import json
import os
import re
import threading
from pathlib import Path
from urllib.parse import urlsplit

from .deaths import looked_at
from .finding import Answer, Finding
from .log_file import Logs
from .state import COMMAND, version

PATIENCE = 5.0  # seconds for the whole of an answer
SERVERS = {"2": ("webserver", "/health"), "3": ("api", "/api/v2/monitor/health")}


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


def health() -> Answer:
    """Return what Airflow's health page says, if Airflow runs."""
    airflow = version("apache-airflow-core") or version("apache-airflow")
    section, page = SERVERS.get(airflow.partition(".")[0], ("", ""))
    if not page:
        return Answer(f"no page is known of the Airflow installed here: {airflow or 'none'}")
    url = next(iter(setting(section, "base_url").values()), "http://localhost:8080").rstrip("/") + page
    told: list[tuple[str, bool]] = []
    # A socket's timeout starts anew with each byte, and looking up a name has none: a thread can be left behind.
    thread = threading.Thread(target=lambda: told.append(_ask(url)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    said, well = told[0] if told else (f"gave no answer within {PATIENCE:g} s", False)
    sick = Finding("warning", f"{url} {said}", f"{COMMAND} doctor --only crashes")
    return Answer(f"{url} {said}", [] if well else [sick])


def _ask(url: str) -> tuple[str, bool]:
    """GET a health page past every proxy; return what came of it, and whether that is well."""
    # Not urllib.request: on macOS it loads _scproxy, which is one of the suspects.
    import http.client

    try:
        parts = urlsplit(url)
        kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}[parts.scheme]
        with contextlib.closing(kind(parts.netloc, timeout=PATIENCE + 1)) as connection:
            connection.request("GET", parts.path)
            response = connection.getresponse()
            page = json.loads(response.read(2**16))
        sick = [name for name, part in page.items() if part["status"] == "unhealthy"]
    except OSError as error:
        return f"could not be asked, so Airflow does not run there ({error})", True
    except Exception as error:  # noqa: BLE001  # no address, answer or body need be what it should be
        return f"gave no answer of Airflow's ({type(error).__name__}: {error})", False
    said = f"answered with status {response.status}, unhealthy: {' and '.join(sick) or 'nothing'}"
    return said, response.status == 200 and not sick


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
