"""The consumers: real programs that fork and set titles, and the work each must do."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from support.processes import free_port

from . import services
from .harness import Consumer, Place, get

# --- gunicorn

APPLICATION = """
import os

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def gunicorn(*options: str) -> Callable[[Place], None]:
    """100 requests are answered by four workers that are replaced again and again."""

    def work(place: Place) -> None:
        place.write("wsgi.py", APPLICATION)
        address = f"127.0.0.1:{free_port()}"
        replaced = ["--max-requests", "10", "--max-requests-jitter", "5"]
        place.start(
            "python",
            "-m",
            "gunicorn",
            "-b",
            address,
            "-w",
            "4",
            *replaced,
            *options,
            "wsgi:application",
        )
        place.until("gunicorn answers", lambda: get(f"http://{address}/"))
        answers: set[bytes] = set()

        def answered() -> int:
            answers.add(get(f"http://{address}/"))
            return len(answers)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: place.until("an answer", answered), range(100)))
        place.until("a replaced worker answers", lambda: answered() > 4)

    return work


# --- Airflow

DAG = """
import os
from datetime import datetime, timedelta

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
    executors = os.environ["AIRFLOW__CORE__EXECUTOR"].split(",")
    for executor in executors:
        BashOperator(task_id=executor, bash_command="true", executor=executor)
    Deferring(task_id="deferring")
"""

DATAHUB_DAG = """
from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator
from datahub_airflow_plugin.entities import Dataset, Urn


class Deferring(BaseOperator):
    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=1)), method_name="resumed")

    def resumed(self, context, event=None):
        return "done"


with DAG("work", start_date=datetime(2024, 1, 1), schedule=None, is_paused_upon_creation=False):
    Deferring(task_id="deferring")
    BashOperator(
        task_id="lineage",
        bash_command="true",
        inlets=[
            Dataset(platform="snowflake", name="shop.orders"),
            Urn("urn:li:dataset:(urn:li:dataPlatform:s3,bucket/orders,PROD)"),
        ],
        outlets=[Dataset(platform="snowflake", name="shop.totals")],
    )
"""


def airflow(place: Place, executor: str, dag: str) -> int:
    """Point Airflow at this place's directory and at free ports, and give it the DAG; return its HTTP port."""
    port = free_port()
    place.write("dags/work.py", dag)
    place.environ.update(
        AIRFLOW_HOME=str(place.directory),
        AIRFLOW__API__HOST="127.0.0.1",
        AIRFLOW__CORE__DAGS_FOLDER=str(place.directory / "dags"),
        AIRFLOW__CORE__EXECUTOR=executor,
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__PARALLELISM="4",
        AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL="5",
        AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT=str(free_port()),
        AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=str(free_port()),
        AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT=str(free_port()),
        AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
        AIRFLOW__WEBSERVER__WEB_SERVER_HOST="127.0.0.1",
    )
    return port


def airflow_3_standalone(place: Place) -> None:
    """All four components are healthy, a DAG run succeeds, and DataHub's plugin writes its lineage into a file."""
    metadata = place.directory / "metadata.json"
    connection = {"conn_type": "datahub-file", "host": str(metadata)}
    place.environ.update(
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
        AIRFLOW__DATAHUB__CONN_ID="datahub_file_default",
        AIRFLOW_CONN_DATAHUB_FILE_DEFAULT=json.dumps(connection),
        DATAHUB_TELEMETRY_ENABLED="false",
    )
    port = airflow(place, "LocalExecutor", DATAHUB_DAG)
    server = f"http://127.0.0.1:{port}"
    place.environ.update(
        AIRFLOW__API__BASE_URL=server,
        AIRFLOW__API__PORT=str(port),
        AIRFLOW__API__WORKERS="1",
        AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"{server}/execution/",
    )
    place.start("airflow", "standalone")

    def healthy() -> bool:
        health = json.loads(get(f"{server}/api/v2/monitor/health"))
        return len(health) == 4 and all(part["status"] == "healthy" for part in health.values())

    place.until("four healthy components", healthy)
    token = json.loads(get(f"{server}/auth/token"))["access_token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def call(path: str, data: object = None) -> dict[str, str]:
        body = json.dumps(data).encode() if data is not None else None
        request = urllib.request.Request(f"{server}/api/v2/dags/{path}", body, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            result: dict[str, str] = json.load(answer)
            return result

    # Its tasks come from the serialized DAG, which workers need; the DAG itself is known before.
    place.until("the DAG is known", lambda: call("work/tasks"))
    run = call("work/dagRuns", {"logical_date": None})["dag_run_id"]
    succeeds(place, lambda: call(f"work/dagRuns/{run}")["state"])

    def lineage() -> bool:
        records = json.loads(metadata.read_text())
        written = json.dumps([r for r in records if r.get("aspectName") == "dataJobInputOutput"])
        return all(name in written for name in ("shop.orders", "bucket/orders", "shop.totals"))

    place.until("the lineage is in the file", lineage)


def succeeds(place: Place, state: Callable[[], str]) -> None:
    """Wait until a DAG run's state is success; a failed run is the end of the wait."""

    def success() -> bool:
        now = state()
        assert now != "failed", "the DAG run failed"
        return now == "success"

    place.until("the DAG run succeeds", success)


def airflow_2(place: Place) -> None:
    """A DAG run succeeds with tasks by both executors, and the webserver's workers live through it."""
    database = services.postgresql(place)
    place.environ.update(
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"postgresql+psycopg2://{database}",
        AIRFLOW__CELERY__BROKER_URL=services.redis(place),
        AIRFLOW__CELERY__RESULT_BACKEND=f"db+postgresql://{database}",
    )
    port = airflow(place, "LocalExecutor,CeleryExecutor", DAG)
    place.finish("airflow", "db", "migrate")
    for component in ("scheduler", "triggerer", "celery worker --concurrency 2"):
        place.start("airflow", *component.split())
    place.start("airflow", "webserver", "-p", str(port), "-w", "2")
    place.until("/health answers", lambda: get(f"http://127.0.0.1:{port}/health"))
    gunicorns = (place.directory / "airflow-webserver.pid").read_text().strip()

    def workers() -> list[str]:
        command = ["pgrep", "-P", gunicorns]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()

    place.until("two workers", lambda: len(workers()) == 2)
    first = workers()

    def sql(query: str) -> str:
        command = ["psql", "-XAtc", query, f"postgresql://{database}"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    place.until("the DAG is known", lambda: sql("select dag_id from serialized_dag"))
    place.finish("airflow", "dags", "trigger", "work")
    succeeds(place, lambda: sql("select state from dag_run"))
    assert workers() == first, "the webserver's workers were replaced"


# --- Celery, RQ, multiprocessing

CELERY = """
import os
from celery import Celery, group

app = Celery("work", broker=os.environ["BROKER"], backend=os.environ["BROKER"])

@app.task
def double(number):
    return 2 * number

if __name__ == "__main__":
    results = group(double.s(number) for number in range(40)).apply_async()
    assert results.get(timeout=300) == [2 * number for number in range(40)]
"""


def celery(place: Place) -> None:
    """40 tasks are answered by four processes, each replaced after five tasks."""
    place.environ["BROKER"] = services.redis(place)
    place.write("work.py", CELERY)
    options = ["-c", "4", "--max-tasks-per-child", "5", "-P", "prefork", "-l", "WARNING"]
    place.start("celery", "-A", "work", "worker", *options)
    place.finish("python", "work.py")


RQ = """
import os
import time

from redis import Redis
from rq import Queue

def double(number):
    return 2 * number

if __name__ == "__main__":
    queue = Queue(connection=Redis.from_url(os.environ["BROKER"]))
    jobs = [queue.enqueue("work.double", number) for number in range(5)]
    while not all(job.is_finished for job in jobs):
        assert not any(job.is_failed for job in jobs)
        time.sleep(0.1)
"""


def rq(place: Place) -> None:
    """Five jobs are done, each by a process forked for it."""
    place.environ["BROKER"] = services.redis(place)
    place.write("work.py", RQ)
    place.start("rq", "worker", "--url", place.environ["BROKER"])
    place.finish("python", "work.py")


FORKS = """
import multiprocessing, sys
from setproctitle import getproctitle, setproctitle

def title(number):
    setproctitle(f"child {number}")
    assert getproctitle() == f"child {number}"

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    context.set_forkserver_preload(["setproctitle"])
    for number in range(50):
        child = context.Process(target=title, args=(number,))
        child.start()
        child.join()
        assert child.exitcode == 0, child
"""


def forks(how: str) -> Callable[[Place], None]:
    """50 children, each started in that way, set their titles and end well."""

    def work(place: Place) -> None:
        place.write("work.py", FORKS)
        place.finish("python", "-W", "ignore", "work.py", how)

    return work


CONSUMERS = [
    *(
        Consumer(
            "gunicorn",
            f"23.0.0 {options}",
            requirements,
            gunicorn(*options.split()),
            symptom=b"was sent SIGSEGV!",
            slow=slow,
            titles=titles,
        )
        for options, requirements, slow, titles in (
            (
                "-k sync",
                ["gunicorn==23.0.0"],
                False,
                ["gunicorn: master [wsgi", "gunicorn: worker [wsgi"],
            ),
            ("-k gevent", ["gunicorn==23.0.0", "gevent"], True, []),
            ("--preload", ["gunicorn==23.0.0"], True, []),
        )
    ),
    *(
        Consumer(
            "multiprocessing", how, [], forks(how), symptom=b"exitcode=-SIGSEGV", slow=how != "fork"
        )
        for how in ("fork", "forkserver")
    ),
    Consumer(
        "Celery prefork on Redis",
        "newest",
        ["celery[redis]"],
        celery,
        symptom=b"exited with 'signal 11 (SIGSEGV)'",
        needs=["redis-server"],
        titles=["[celeryd: celery@"],
    ),
    Consumer(
        "RQ on Redis",
        "newest",
        ["rq"],
        rq,
        symptom=b"waitpid returned 11 (signal 11)",
        needs=["redis-server"],
    ),
    Consumer(
        "Airflow scheduler, webserver, Local- and CeleryExecutor",
        "2.10.5",
        # Titles are shown by a processtitle that is newer.
        [
            "apache-airflow[postgres,celery,redis]==2.10.5",
            "processtitle",
            "--exclude-newer-package=processtitle=2026-10-01",
        ],
        airflow_2,
        exclude_newer="2025-03-01",
        symptom=b"exited with exit code -11",
        enough=10,
        needs=["psql", "redis-server"],
    ),
    Consumer(
        "Airflow standalone, LocalExecutor, DataHub's plugin 1.4.0",
        "3.0.2",
        [
            "apache-airflow==3.0.2",
            "acryl-datahub-airflow-plugin[airflow3,datahub-file]==1.4.0",
            *(
                f"--exclude-newer-package={name}=2026-03-01"
                for name in (
                    "acryl-datahub",
                    "acryl-datahub-airflow-plugin",
                    "sqlglot",
                    "sqlglotrs",
                )
            ),
        ],
        airflow_3_standalone,
        exclude_newer="2025-07-15",
    ),
]
