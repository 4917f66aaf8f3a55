"""The consumers: real programs that fork and set titles."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .harness import Consumer, Place, free_port, get

APPLICATION = """
import os

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def gunicorn(*options: str) -> Callable[[Place], None]:
    """Serve 1,000 requests by four workers that are replaced again and again."""

    def work(place: Place) -> None:
        place.write("wsgi.py", APPLICATION)
        address = f"127.0.0.1:{free_port()}"
        place.start("gunicorn", "-b", address, "-w", "4", *options, "wsgi:application")
        place.until("gunicorn answers", lambda: get(f"http://{address}/"))
        answers: set[bytes] = set()

        def request(_: int) -> None:
            place.until("an answer", lambda: answers.add(get(f"http://{address}/")) or True)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(request, range(1000)))
        assert len(answers) > 4, f"only the workers {answers} ever answered: none was replaced"

    return work


DAG = """
from datetime import datetime, timedelta

try:
    from airflow.sdk import DAG, BaseOperator
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
except ImportError:
    from airflow import DAG
    from airflow.models.baseoperator import BaseOperator
    from airflow.operators.bash import BashOperator
    from airflow.triggers.temporal import TimeDeltaTrigger


class Deferring(BaseOperator):
    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=1)), method_name="resumed")

    def resumed(self, context, event=None):
        return "done"


with DAG("work", start_date=datetime(2024, 1, 1), schedule=None, is_paused_upon_creation=False):
    BashOperator(task_id="first", bash_command="true") >> Deferring(task_id="second")
"""


def airflow_environ(place: Place, **more: str) -> None:
    """Point Airflow at this place's directory and at free ports, and give it the DAG."""
    place.write("dags/work.py", DAG)
    place.environ.update(
        AIRFLOW_HOME=str(place.directory),
        AIRFLOW__CORE__DAGS_FOLDER=str(place.directory / "dags"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__PARALLELISM="4",
        AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=str(free_port()),
        AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT=str(free_port()),
        AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT=str(free_port()),
        AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
        **more,
    )


def airflow_3_standalone(place: Place) -> None:
    """All components healthy, and a DAG run with a deferrable task succeeds."""
    port = free_port()
    airflow_environ(
        place,
        AIRFLOW__API__PORT=str(port),
        AIRFLOW__API__BASE_URL=f"http://127.0.0.1:{port}",
        AIRFLOW__API__WORKERS="1",
        AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"http://127.0.0.1:{port}/execution/",
        AIRFLOW__CORE__EXECUTOR="LocalExecutor",
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
        AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL="5",
    )
    api = f"http://127.0.0.1:{port}/api/v2"
    place.start("airflow", "standalone")

    def healthy() -> bool:
        health = json.loads(get(f"{api}/monitor/health"))
        return len(health) == 4 and all(part["status"] == "healthy" for part in health.values())

    place.until("four healthy components", healthy)
    headers = {
        "Authorization": "Bearer " + json.loads(get(f"http://127.0.0.1:{port}/auth/token"))["access_token"],
        "Content-Type": "application/json",
    }

    def call(path: str, data: object = None) -> dict[str, str]:
        body = json.dumps(data).encode() if data is not None else None
        with urllib.request.urlopen(urllib.request.Request(api + path, body, headers), timeout=10) as answer:
            result: dict[str, str] = json.load(answer)
            return result

    place.until("the DAG is known", lambda: call("/dags/work"))
    run = call("/dags/work/dagRuns", {"logical_date": None})["dag_run_id"]
    place.until("the DAG run ends", lambda: state(place, call, run) == "success")


def state(place: Place, call: Callable[[str], dict[str, str]], run: str) -> str:
    """Return the DAG run's state; a failed run is the end of the wait."""
    current = call(f"/dags/work/dagRuns/{run}")["state"]
    assert current != "failed", "the DAG run failed"
    return current


SIGSEGV = b"was sent SIGSEGV!"

CONSUMERS = [
    *(
        Consumer(
            "gunicorn",
            f"23.0.0 {kind}",
            ["gunicorn==23.0.0"],
            gunicorn("-k", kind, *options, "--max-requests", "100", "--max-requests-jitter", "20"),
            symptom=SIGSEGV,
            slow=False,
        )
        for kind, options in (("sync", []), ("gthread", ["--threads", "2"]))
    ),
    Consumer(
        "Airflow standalone, LocalExecutor",
        "3.0.2",
        ["apache-airflow==3.0.2"],
        airflow_3_standalone,
        exclude_newer="2025-07-15",
    ),
]
