"""The consumers: real programs that fork and set titles, and the work each must do."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil

from . import services
from .harness import Consumer, Place, free_port, get

WAS_SENT = b"was sent SIGSEGV!"
SIGNAL_11 = b"exited with 'signal 11 (SIGSEGV)'"
STOPPED = b"exitcode=-SIGSEGV"
STATUS = b"a child ended with -11"
EXIT_CODE = b"exited with exit code -11"

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
        place.start("gunicorn", "-b", address, "-w", "4", *replaced, *options, "wsgi:application")
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


DATAHUB_DAG = """
from datetime import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from datahub_airflow_plugin.entities import Dataset, Urn

with DAG("work", start_date=datetime(2024, 1, 1), schedule=None, is_paused_upon_creation=False):
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


def airflow(place: Place, executor: str, dag: str = DAG, **more: str) -> int:
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
        **more,
    )
    return port


def airflow_3_standalone(place: Place, dag: str = DAG) -> None:
    """All four components are healthy, and a run of the DAG succeeds; the usual one has a deferrable task."""
    port = airflow(place, "LocalExecutor", dag, AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True")
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


def datahub(place: Place) -> None:
    """DataHub's plugin writes the lineage of a DAG's inlets and outlets into a file."""
    metadata = place.directory / "metadata.json"
    connection = {"conn_type": "datahub-file", "host": str(metadata)}
    place.environ.update(
        AIRFLOW__DATAHUB__CONN_ID="datahub_file_default",
        AIRFLOW_CONN_DATAHUB_FILE_DEFAULT=json.dumps(connection),
        DATAHUB_TELEMETRY_ENABLED="false",
    )
    airflow_3_standalone(place, DATAHUB_DAG)

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


def airflow_2_on_postgresql(
    *components: str, executor: str, triggerer: bool = True
) -> Callable[[Place], None]:
    """A DAG run with a deferrable task succeeds; each component is a command line after `airflow`."""

    def work(place: Place) -> None:
        database = services.postgresql(place)
        airflow(place, executor, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"postgresql+psycopg2://{database}")
        if executor == "CeleryExecutor":
            place.environ.update(
                AIRFLOW__CELERY__BROKER_URL=services.redis(place),
                AIRFLOW__CELERY__RESULT_BACKEND=f"db+postgresql://{database}",
            )
        place.finish("airflow", "db", "migrate")
        for component in ("scheduler", "triggerer", *components):
            place.start("airflow", *component.split())

        def sql(query: str) -> str:
            command = ["psql", "-XAtc", query, f"postgresql://{database}"]
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

        place.until("the DAG is known", lambda: sql("select dag_id from serialized_dag"))
        place.finish("airflow", "dags", "trigger", "work")
        succeeds(place, lambda: sql("select state from dag_run"))

    return work


def webserver(place: Place) -> psutil.Process:
    """Start Airflow 2's webserver; return gunicorn's master once /health answers and there are two workers."""
    port = airflow(place, "SequentialExecutor")
    place.finish("airflow", "db", "migrate")
    place.start("airflow", "webserver", "-p", str(port), "-w", "2")
    place.until("/health answers", lambda: get(f"http://127.0.0.1:{port}/health"))
    master = psutil.Process(int((place.directory / "airflow-webserver.pid").read_text()))
    place.until("two workers", lambda: len(master.children()) == 2)
    return master


def airflow_2_webserver(place: Place) -> None:
    """/health answers, and the workers keep their pids for 15 s."""
    master = webserver(place)
    workers = {worker.pid for worker in master.children()}
    place.holds_for(15, "the workers keep their pids", lambda: {w.pid for w in master.children()} == workers)


# --- Celery, Dask, pytest-xdist, multiprocessing

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
    place.start(
        "celery",
        "-A",
        "work",
        "worker",
        "-c",
        "4",
        "--max-tasks-per-child",
        "5",
        "-P",
        "prefork",
        "-l",
        "WARNING",
    )
    place.finish("python", "work.py")


DASK = """
from dask.distributed import Client, LocalCluster

if __name__ == "__main__":
    with LocalCluster(4, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        assert sum(client.gather(client.map(lambda n: n + 1, range(200)))) == sum(range(1, 201))
"""


def dask(place: Place) -> None:
    """A local cluster of four worker processes does 200 tasks."""
    place.write("work.py", DASK)
    place.finish("python", "work.py")


def xdist(place: Place) -> None:
    """Four worker processes run a small test suite."""
    place.write(
        "test_work.py", "import pytest\n\n@pytest.mark.parametrize('n', range(50))\ndef test(n): pass\n"
    )
    place.finish("pytest", "-n", "4")
    assert b"50 passed" in place.log.read_bytes()


MUTMUT = {
    "setup.cfg": "[mutmut]\npaths_to_mutate=lib.py\ntests_dir=tests\n",
    "lib.py": "def after(number):\n    return number + 1\n\n\ndef more(a, b):\n    return a - b > 0\n",
    "tests/test_lib.py": """
from lib import after, more

def test_after():
    assert after(1) == 2

def test_more():
    assert [more(2, 1), more(1, 1), more(1, 2)] == [True, False, False]
""",
}


def mutmut(place: Place) -> None:
    """Every mutant is tried in a process of its own, and killed by the tests."""
    for name, text in MUTMUT.items():
        place.write(name, text)
    place.finish("mutmut", "run")
    place.finish("mutmut", "results", "--all", "true")
    ends = [line.rpartition(b": ")[2] for line in place.log.read_bytes().splitlines() if b"__mutmut_" in line]
    assert len(ends) >= 4 and set(ends) == {b"killed"}, ends


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


GRANIAN = """
import multiprocessing

from granian.cli import entrypoint

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn", force=True)  # macOS's default
    entrypoint()
"""


def granian(place: Place) -> None:
    """Requests are answered by two workers."""
    place.write("wsgi.py", APPLICATION)
    place.write("work.py", GRANIAN)
    port = str(free_port())
    options = ["--interface", "wsgi", "--workers", "2", "--port", port, "--process-name", "granian"]
    place.start("python", "work.py", *options, "wsgi:application")
    answers: set[bytes] = set()

    def answered_by_two() -> bool:
        answers.add(get(f"http://127.0.0.1:{port}/"))
        return len(answers) == 2

    place.until("two workers answer", answered_by_two)


RAY = """
import os

import ray

@ray.remote
def where():
    import setproctitle
    return setproctitle.__file__

if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False)
    file = ray.get(where.remote())
    assert file.endswith("replacement.py") or os.environ["AIRFLOW_SETPROCTITLE_SHIM"] == "off", file
"""


def ray(place: Place) -> None:
    """A remote function runs in a worker, and the setproctitle that it imports is the shim's, where it is on."""
    place.write("work.py", RAY)
    place.finish("python", "work.py")


FORKS = """
import multiprocessing, os, sys, threading
from setproctitle import getproctitle, setproctitle

CHILDREN, HOW = int(sys.argv[1]), sys.argv[2]

def title(number=0):
    setproctitle(f"child {number}")
    assert getproctitle() == f"child {number}"

def fork(leave):
    pid = os.fork()
    if not pid:
        try:
            leave()
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    end = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert end == 0, f"a child ended with {end}"

def in_thread():
    errors = []
    threading.excepthook = errors.append
    thread = threading.Thread(target=fork, args=(title,))
    thread.start()
    thread.join()
    assert not errors, errors

def daemonised():
    def session_leader():
        os.setsid()
        fork(title)
    fork(session_leader)

def process():
    child = context.Process(target=title)
    child.start()
    child.join()
    assert child.exitcode == 0, child

if __name__ == "__main__":
    if HOW in ("fork", "forkserver", "spawn"):
        context = multiprocessing.get_context(HOW)
        context.set_forkserver_preload(["setproctitle"])
        once = process
    else:
        once = {"thread": in_thread, "daemon": daemonised}[HOW]
    for _ in range(CHILDREN):
        once()
"""


def forks(**children: int) -> Callable[[Place], None]:
    """Every child sets its title and ends well; the keywords are ways to start one, and how often."""

    def work(place: Place) -> None:
        place.write("work.py", FORKS)
        for how, count in children.items():
            place.finish("python", "-W", "ignore", "work.py", str(count), how)

    return work


GUARDED = "guarded upstream: on macOS it does not import setproctitle"
EXEC = "its processes are started by exec, not by fork alone"

GUNICORN_TITLES = ("gunicorn: master [wsgi:application]", "gunicorn: worker [wsgi:application]")
AIRFLOW_3_TITLES = (
    "airflow worker -- LocalExecutor",
    "airflow api_server",
    "gunicorn: master",
    "gunicorn: worker",
)
AIRFLOW_GUARDS = (
    "airflow.api_fastapi.gunicorn_config",
    "airflow.cli.commands.api_server_command",
    "airflow.executors.base_executor",
    "airflow.executors.local_executor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.utils.serve_logs.core",
    "gunicorn.util",
)
# One environment for all that is run of it; titles are shown by a processtitle that is newer.
AIRFLOW_2 = [
    "apache-airflow[postgres,celery,redis]==2.10.5",
    "processtitle",
    "--exclude-newer-package=processtitle=2026-10-01",
]

CONSUMERS = [
    *(
        Consumer(
            "gunicorn",
            version,
            requirements,
            gunicorn(*options),
            symptom=WAS_SENT,
            slow=slow,
            titles=titles,
        )
        for version, requirements, options, slow, titles in (
            ("23.0.0 sync", ["gunicorn==23.0.0"], ["-k", "sync"], False, GUNICORN_TITLES),
            (
                "23.0.0 gthread",
                ["gunicorn==23.0.0"],
                ["-k", "gthread", "--threads", "2"],
                False,
                GUNICORN_TITLES,
            ),
            ("23.0.0 gevent", ["gunicorn==23.0.0", "gevent"], ["-k", "gevent"], True, ()),
            ("23.0.0 --preload", ["gunicorn==23.0.0"], ["--preload"], True, ()),
        )
    ),
    Consumer(
        "gunicorn",
        "20.1.0 sync",
        ["gunicorn==20.1.0", "setuptools<81"],
        gunicorn("-k", "sync"),
        symptom=b"was terminated due to signal 11",
    ),
    Consumer(
        "gunicorn",
        "newest",
        ["gunicorn>=25"],
        gunicorn(),
        before="guarded",
        why=GUARDED,
        guards=["gunicorn.util"],
    ),
    *(
        Consumer(
            "multiprocessing",
            f"Python {python}",
            [],
            forks(fork=100, thread=100, daemon=100, forkserver=100, spawn=20),
            symptom=STOPPED,
            python=python,
        )
        for python in ("3.9", "3.10", "3.12", "3.13")
    ),
    Consumer(
        "multiprocessing", "Python 3.11", [], forks(fork=100), symptom=STOPPED, python="3.11", slow=False
    ),
    Consumer("multiprocessing", "forkserver", [], forks(forkserver=100), symptom=STOPPED),
    Consumer("multiprocessing", "spawn", [], forks(spawn=20), before="lives", why=EXEC),
    Consumer("os.fork", "from a thread", [], forks(thread=100), symptom=STATUS),
    Consumer("os.fork", "daemonised twice", [], forks(daemon=100), symptom=STATUS),
    *(
        Consumer(
            "Celery prefork on Redis",
            version,
            requirements,
            celery,
            era,
            SIGNAL_11,
            slow=slow,
            needs=["redis-server"],
            titles=titles,
        )
        for version, requirements, era, slow, titles in (
            ("newest", ["celery[redis]"], None, False, ("[celeryd: celery@",)),
            ("5.3", ["celery[redis]==5.3.*"], "2024-03-01", True, ()),
        )
    ),
    Consumer(
        "Dask distributed",
        "forkserver",
        ["distributed"],
        dask,
        environ={"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver"},
    ),
    Consumer("Dask distributed", "spawn", ["distributed"], dask, before="lives", why=EXEC),
    Consumer("granian", "spawn", ["granian[pname]"], granian, before="lives", why=EXEC),
    Consumer(
        "mutmut",
        "3.3.1",
        ["mutmut==3.3.1", "pytest<9"],
        mutmut,
        symptom=b": segfault",
        enough=100,  # It goes on to the end.
    ),
    Consumer("Ray", "2.47.1", ["ray==2.47.1"], ray, before="lives", why=EXEC),
    Consumer(
        "RQ on Redis",
        "newest",
        ["rq"],
        rq,
        symptom=b"waitpid returned 11 (signal 11)",
        needs=["redis-server"],
    ),
    Consumer("pytest-xdist", "newest", ["pytest-xdist"], xdist, before="lives", why=EXEC),
    Consumer(
        "Airflow webserver",
        "2.10.5",
        AIRFLOW_2,
        airflow_2_webserver,
        exclude_newer="2025-03-01",
        symptom=WAS_SENT,
    ),
    Consumer(
        "Airflow scheduler, LocalExecutor",
        "2.10.5",
        AIRFLOW_2,
        airflow_2_on_postgresql(executor="LocalExecutor"),
        exclude_newer="2025-03-01",
        symptom=EXIT_CODE,
        enough=10,
        needs=["psql"],
        titles=("airflow worker -- LocalExecutor",),
    ),
    Consumer(
        "Airflow, CeleryExecutor",
        "2.10.5",
        AIRFLOW_2,
        airflow_2_on_postgresql("celery worker --concurrency 2", executor="CeleryExecutor"),
        exclude_newer="2025-03-01",
        symptom=EXIT_CODE,
        needs=["psql", "redis-server"],
    ),
    Consumer(
        "Airflow standalone, LocalExecutor",
        "3.0.2",
        ["apache-airflow==3.0.2"],
        airflow_3_standalone,
        exclude_newer="2025-07-15",
        titles=AIRFLOW_3_TITLES,
    ),
    Consumer(
        "Airflow with DataHub's plugin",
        "3.0.2, plugin 1.4.0",
        [
            "apache-airflow==3.0.2",
            "acryl-datahub-airflow-plugin[airflow3,datahub-file]==1.4.0",
            *(
                f"--exclude-newer-package={name}=2026-03-01"
                for name in ("acryl-datahub", "acryl-datahub-airflow-plugin", "sqlglot", "sqlglotrs")
            ),
        ],
        datahub,
        exclude_newer="2025-07-15",
    ),
    Consumer(
        "Airflow standalone, LocalExecutor",
        "3.3",
        ["apache-airflow==3.3.*"],
        airflow_3_standalone,
        before="guarded",
        why=GUARDED,
        guards=AIRFLOW_GUARDS,
    ),
]
FIRST_GUARDED = dataclasses.replace(CONSUMERS[-1], version="3.1", requirements=["apache-airflow==3.1.*"])
