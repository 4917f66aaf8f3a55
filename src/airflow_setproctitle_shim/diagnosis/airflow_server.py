"""What Airflow itself tells: its settings, where its logs lie, its health page, and why its API refuses workers."""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import threading
from pathlib import Path
from urllib.parse import urlsplit

from . import metadata
from .deaths import Logs, looked_at
from .finding import Answer, Finding
from .state import COMMAND

PATIENCE = 5.0  # seconds for the whole of an answer
SERVERS = {  # by Airflow's major version: section, the port's setting, page
    "2": ("webserver", "web_server_port", "/health"),
    "3": ("api", "port", "/api/v2/monitor/health"),
}


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


def first(section: str, key: str, otherwise: str) -> str:
    """Return the value that Airflow uses."""
    return next(iter(setting(section, key).values()), otherwise)


def default_logs() -> list[Path]:
    """Return where Airflow's logs lie: its log folder, and what `airflow ... > standalone.log` made."""
    home = expand("$AIRFLOW_HOME")
    files = (path for end in ("log", "err", "out") for path in sorted(home.glob(f"*.{end}")))
    return [expand(first("logging", "base_log_folder", "$AIRFLOW_HOME/logs")), *files]


def health() -> Answer:
    """Return what Airflow's health page says, if Airflow runs."""
    version = metadata.version("apache-airflow-core") or metadata.version("apache-airflow") or ""
    if version.partition(".")[0] not in SERVERS:
        return Answer(
            f"no page: {f'Airflow {version} is not known' if version else 'Airflow is not installed here'}"
        )
    section, port, page = SERVERS[version.partition(".")[0]]
    url = first(section, "base_url", f"http://localhost:{first(section, port, '8080')}").rstrip("/") + page
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
        connection = kind(parts.netloc, timeout=PATIENCE + 1)
    except Exception:  # noqa: BLE001
        return Answer(f"no page: base_url is no URL, in {url}")
    try:
        with contextlib.closing(connection):
            connection.request("GET", parts.path)
            response = connection.getresponse()
            page = json.loads(response.read(2**16))
        sick = [name for name, part in page.items() if part["status"] == "unhealthy"]
    except OSError as error:
        return Answer(f"{url} could not be asked, so Airflow does not run there ({error})")
    except Exception:  # noqa: BLE001  # neither HTTP nor a body need be what they should be
        return _sick(url, "gave an answer that is not Airflow's")
    if sick:
        return _sick(url, f"says that {' and '.join(sick)} is unhealthy")
    return (
        Answer(f"{url}: healthy")
        if response.status == 200
        else _sick(url, f"answered with status {response.status}")
    )


def execution_api(logs: Logs) -> Answer:
    """Return whether the execution API refused workers, and where the secret is set that they must share."""
    answer = Answer(looked_at(logs))
    if not logs.refused:
        return answer
    values = setting("api_auth", "jwt_secret")
    places = [*values, *setting("api_auth", "jwt_secret_cmd"), *setting("api_auth", "jwt_secret_secret")]
    state = f"is set in {' and '.join(places)}; every component must see the same, and the same time of day"
    if not places:
        state = "is set nowhere, so every component makes up its own"
    elif len(set(values.values())) > 1:
        state = f"differs between {' and '.join(values)}"
    count = sum(refused.before + refused.since + refused.undated for refused in logs.refused.values())
    finding = Finding(
        "warning",
        f"{count} answer{'s' * (count != 1)} 401 of the execution API to workers; [api_auth] jwt_secret {state}",
        "export AIRFLOW__API_AUTH__JWT_SECRET=... with one value for all components; compare their clocks",
        tuple(f"apache/airflow/issues/{issue}" for issue in (49871, 51235, 47873)),
        tuple(f"{program}: first at {refused.first}" for program, refused in logs.refused.items()),
        {"count": count},
    )
    answer.findings.append(finding)
    return answer
