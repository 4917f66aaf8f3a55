"""What Airflow itself tells: its settings, where its logs lie, its health page, and why its API refuses workers."""

from __future__ import annotations

import configparser
import contextlib
import glob
import json
import os
import threading
from pathlib import Path
from urllib.parse import urlsplit

from . import metadata
from .deaths import looked_at
from .finding import Answer, Finding
from .log_file import Logs
from .state import COMMAND

PATIENCE = 5.0  # seconds for the whole of an answer
SERVERS = {
    "2": ("webserver", "/health"),
    "3": ("api", "/api/v2/monitor/health"),
}  # by Airflow's major version


def expand(path: str) -> Path:
    """Return a path with ~ and variables resolved, as Airflow does; those that are not set are left as they are."""
    home = os.environ.get("AIRFLOW_HOME") or "~/airflow"
    for name in ("${AIRFLOW_HOME}", "{AIRFLOW_HOME}", "$AIRFLOW_HOME"):
        path = path.replace(name, home)
    return Path(os.path.expanduser(os.path.expandvars(path)))


def setting(section: str, key: str) -> dict[str, str]:
    """Return the values that the environment and airflow.cfg give, by where they stand, Airflow's choice first."""
    variable = f"AIRFLOW__{section}__{key}".upper()
    file = expand(os.environ.get("AIRFLOW_CONFIG") or "$AIRFLOW_HOME/airflow.cfg")
    parser = configparser.RawConfigParser(strict=False)
    with contextlib.suppress(OSError, configparser.Error):  # What was parsed before an error is kept.
        parser.read_string(metadata.read(file).decode("utf-8-sig", "replace"))
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
    version = metadata.version("apache-airflow-core") or metadata.version("apache-airflow")
    section, page = SERVERS.get(version.partition(".")[0], ("", ""))
    if not page:
        return Answer(f"no page is known of the Airflow installed here: {version or 'none'}")
    url = next(iter(setting(section, "base_url").values()), "http://localhost:8080").rstrip("/") + page
    answers: list[Answer] = []
    # A socket's timeout starts anew with each byte, and looking up a name has none: a thread can be left behind.
    thread = threading.Thread(target=lambda: answers.append(_ask(url)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answers[0] if answers else _sick(url, f"gave no answer within {PATIENCE:g} s")


def _sick(url: str, trouble: str) -> Answer:
    return Answer(url, [Finding("warning", f"{url} {trouble}", f"{COMMAND} doctor --only crashes")])


def _ask(url: str) -> Answer:
    """GET a health page past every proxy, and judge it."""
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
        return Answer(f"{url} could not be asked, so Airflow does not run there ({error})")
    except Exception as error:  # noqa: BLE001  # no address, answer or body need be what it should be
        return _sick(url, f"gave no answer of Airflow's ({type(error).__name__}: {error})")
    if sick:
        return _sick(url, f"says that {' and '.join(sick)} is unhealthy")
    if response.status != 200:
        return _sick(url, f"answered with status {response.status}")
    return Answer(f"{url}: healthy")


def execution_api(logs: Logs) -> Answer:
    """Return whether the execution API refused workers, and where the secret is set that they must share."""
    if not (count := sum(sum(refused.values()) for refused in logs.refused.values())):
        return Answer(looked_at(logs))
    values = setting("api_auth", "jwt_secret")
    places = [*values, *setting("api_auth", "jwt_secret_cmd"), *setting("api_auth", "jwt_secret_secret")]
    state = f"is set in {' and '.join(places)}; every component must see the same, and the same time of day"
    if not places:
        state = "is set nowhere, so every component makes up its own"
    elif len(set(values.values())) > 1:
        state = f"differs between {' and '.join(values)}"
    evidence = f"{count} answer{'s' * (count != 1)} 401 of the execution API to workers; [api_auth] jwt_secret {state}"
    remedy = "export AIRFLOW__API_AUTH__JWT_SECRET=... with one value for all components; compare clocks"
    sources = tuple(f"apache/airflow/issues/{issue}" for issue in (49871, 51235, 47873))
    details = tuple(f"{program}: first at {refused.first}" for program, refused in logs.refused.items())
    return Answer(looked_at(logs), [Finding("warning", evidence, remedy, sources, details, {"count": count})])
