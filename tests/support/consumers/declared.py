"""The consumers: real programs that use setproctitle, and the work each must do. A row each, see Consumer."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sqlite3
import subprocess
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from support.processes import NotInTime, free_port

from . import services
from .harness import FAILS_ANYWAY, NEEDS_NOTHING, Consumer, Place, get

# --- gunicorn


def gunicorn(*options: str) -> Callable[[Place], None]:
    """100 requests are answered by four workers that are replaced again and again."""

    def work(place: Place) -> None:
        place.put("wsgi.py")
        address = f"127.0.0.1:{free_port()}"
        workers = ["-w", "4", "--max-requests", "10", "--max-requests-jitter", "5"]
        command = ["python", "-m", "gunicorn", "-b", address, *workers, *options]
        place.start(*command, "wsgi:application")
        place.until("gunicorn answers", lambda: get(f"http://{address}/"))
        answers: set[bytes] = set()

        def answered() -> int:
            answers.add(get(f"http://{address}/"))
            return len(answers)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: place.until("an answer", answered), range(100)))
        place.until("a replaced worker answers", lambda: answered() > 4)

    return work


# --- multiprocessing, Celery, RQ, django-q2, Mitogen


def children(*how: str) -> Callable[[Place], None]:
    """50 children, each started in that way or by default, set their titles and end well."""

    def work(place: Place) -> None:
        place.put("children.py")
        place.finish("python", "-W", "ignore", "children.py", *how)

    return work


def celery(place: Place) -> None:
    """40 tasks are answered by four processes, each replaced after five tasks."""
    place.environ["BROKER"] = services.redis(place)
    place.put("celery_work.py")
    options = ["-c", "4", "--max-tasks-per-child", "5", "-P", "prefork", "-l", "WARNING"]
    place.start("celery", "-A", "celery_work", "worker", *options)
    place.finish("python", "celery_work.py")


def rq(place: Place) -> None:
    """Five jobs are done, each by a process forked for it."""
    place.environ["BROKER"] = services.redis(place)
    place.put("rq_work.py")
    place.start("rq", "worker", "--url", place.environ["BROKER"])
    place.finish("python", "rq_work.py")


def django_q(place: Place) -> None:
    """Five tasks are done by a cluster of two workers."""
    place.environ["BROKER"] = services.redis(place)
    place.put("django_q_work.py")
    place.finish("python", "django_q_work.py", "migrate")
    place.start("python", "django_q_work.py", "qcluster")
    place.finish("python", "django_q_work.py")


def mitogen(place: Place) -> None:
    """A playbook of one task runs to its end by Mitogen's strategy."""
    place.put("playbook.yml")
    find = "import ansible_mitogen, os; print(os.path.dirname(ansible_mitogen.__file__))"
    plugins = place.venv.evaluate(find) + "/plugins/strategy"
    place.environ.update(ANSIBLE_STRATEGY_PLUGINS=plugins, ANSIBLE_STRATEGY="mitogen_linear")
    interpreter = f"ansible_python_interpreter={place.venv.python}"
    options = ["-i", "localhost,", "-c", "local", "-e", interpreter]
    place.finish("ansible-playbook", *options, "playbook.yml", seconds=60)


# --- Airflow


def airflow(place: Place, executor: str, dag: str) -> int:
    """Point Airflow at this place's directory and at free ports, and give it the DAG; return its HTTP port."""
    port, triggerers_port = free_port(), str(free_port())
    place.put(dag, into="dags")
    place.environ.update(
        AIRFLOW_HOME=str(place.directory),
        AIRFLOW__API__HOST="127.0.0.1",
        AIRFLOW__CORE__DAGS_FOLDER=str(place.directory / "dags"),
        AIRFLOW__CORE__EXECUTOR=executor,
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__PARALLELISM="4",
        AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL="5",
        # Airflow reads the one and the other.
        AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT=triggerers_port,
        AIRFLOW__LOGGING__TRIGGERER_LOG_SERVER_PORT=triggerers_port,
        AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=str(free_port()),
        AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT=str(free_port()),
        AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
        AIRFLOW__WEBSERVER__WEB_SERVER_HOST="127.0.0.1",
        AIRFLOW__WEBSERVER__WEB_SERVER_PORT=str(port),
    )
    return port


def on_postgresql(place: Place) -> Callable[[str], str]:
    """Have Airflow use PostgreSQL, and Redis for Celery; return what gives a query's one result."""
    database = services.postgresql(place)
    place.environ.update(
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"postgresql+psycopg2://{database}",
        AIRFLOW__CELERY__BROKER_URL=services.redis(place),
        AIRFLOW__CELERY__RESULT_BACKEND=f"db+postgresql://{database}",
    )

    def sql(query: str) -> str:
        command = ["psql", "-XAtc", query, f"postgresql://{database}"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    return sql


def succeeds(place: Place, state: Callable[[], str]) -> None:
    """Wait until a DAG run's state is success; a failed run is the end of the wait."""

    def success() -> bool:
        now = state()
        assert now != "failed", "the DAG run failed"
        return now == "success"

    place.until("the DAG run succeeds", success)


def start_and_succeed(place: Place, sql: Callable[[str], str], *components: str) -> None:
    """Start these components and wait until the DAG run succeeds; one that ends is the end of the wait."""
    started = {name: place.start("airflow", *name.split()) for name in components}

    def state() -> str:
        ended = [name for name, process in started.items() if process.poll() is not None]
        assert not ended, f"ended: {', '.join(ended)}"
        return sql("select state from dag_run")

    succeeds(place, state)


# --- Airflow 2


def airflow_2_standalone(place: Place) -> None:
    """A DAG run succeeds, and the webserver answers."""
    port = airflow(place, "SequentialExecutor", "dag_of_airflow_2.py")
    place.start("airflow", "standalone")

    def sql(query: str) -> str:
        database = f"file:{place.directory}/airflow.db?mode=ro"
        try:
            with contextlib.closing(sqlite3.connect(database, uri=True)) as connection:
                return str((connection.execute(query).fetchone() or [""])[0])
        except sqlite3.Error:  # It is being made.
            return ""

    succeeds(place, lambda: sql("select state from dag_run"))
    place.until("the webserver answers", lambda: get(f"http://127.0.0.1:{port}/health"))


def airflow_2(executor: str, *components: str) -> Callable[[Place], None]:
    """A DAG run succeeds, with a task by the executor and one that defers."""

    def work(place: Place) -> None:
        sql = on_postgresql(place)
        airflow(place, executor, "dag_of_airflow_2.py")
        place.finish("airflow", "db", "migrate")
        start_and_succeed(place, sql, "scheduler", "triggerer", *components)

    return work


# --- Airflow 3

DAG = "work"  # in programs/


class Server:
    """The API server of an Airflow 3 whose configuration it completes."""

    def __init__(self, place: Place, executor: str, dag: str) -> None:
        self.place = place
        place.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] = "True"
        port = airflow(place, executor, dag)
        self.address = f"http://127.0.0.1:{port}"
        place.environ.update(
            AIRFLOW__API__BASE_URL=self.address,
            AIRFLOW__API__PORT=str(port),
            AIRFLOW__API__WORKERS="1",
            AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"{self.address}/execution/",
            # Its first answer takes long on a busy machine.
            AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT="120",
        )

    def version(self) -> bytes:
        return get(f"{self.address}/api/v2/version")

    def is_healthy(self) -> bool:
        """Whether all four components are."""
        health = json.loads(get(f"{self.address}/api/v2/monitor/health"))
        return len(health) == 4 and all(part["status"] == "healthy" for part in health.values())

    def call(self, path: str, data: object = None) -> Any:
        """Return what the API answers below the DAG's address; with data it is told to do something."""
        token = json.loads(get(f"{self.address}/auth/token"))["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        body = json.dumps(data).encode() if data is not None else None
        url = f"{self.address}/api/v2/dags/{DAG}/{path}"
        with urllib.request.urlopen(
            urllib.request.Request(url, body, headers), timeout=60
        ) as answer:
            return json.load(answer)

    def trigger(self) -> str:
        """Run the DAG once all is healthy; return the run's path."""
        self.place.until("four healthy components", self.is_healthy)
        # Its tasks come from the serialized DAG, which workers need; the DAG itself is known before.
        self.place.until("the DAG is known", lambda: self.call("tasks"))
        run = self.call("dagRuns", {"logical_date": None})["dag_run_id"]
        return f"dagRuns/{run}"

    def is_in_state(self, path: str, state: str) -> bool:
        return bool(self.call(path)["state"] == state)

    def serves_log(self, path: str) -> bool:
        """Whether a task's log is read from a log server. At its top stands what was read, and what could not be."""
        log = json.dumps(self.call(f"{path}/logs/1"))
        sources = re.search(r'"sources": \[[^]]*"http://', log)
        return bool(sources) and "Could not read served logs" not in log

    def succeeds(self, run: str) -> None:
        succeeds(self.place, lambda: str(self.call(run)["state"]))


def airflow_3_standalone(place: Place) -> None:
    """All four components are healthy, and a DAG run succeeds."""
    server = Server(place, "LocalExecutor", "dag_to_be_watched.py")
    (place.directory / "go").touch()  # Nobody watches.
    place.start("airflow", "standalone")
    server.succeeds(server.trigger())


def airflow_3_logs(place: Place) -> None:
    """The log of a running and of a deferred task can be read while they are so; then the DAG run succeeds."""
    server = Server(place, "LocalExecutor", "dag_to_be_watched.py")
    place.start("airflow", "standalone")
    run = server.trigger()
    unread = []
    for task in ("deferred", "running"):
        instance = f"{run}/taskInstances/{task}"
        place.until(f"the task is {task}", functools.partial(server.is_in_state, instance, task))
        try:
            place.until("its log can be read", functools.partial(server.serves_log, instance), 30)
        except NotInTime as error:
            unread.append(f"{task}: {error}")
    (place.directory / "go").touch()
    server.succeeds(run)
    assert not unread, unread


def airflow_3_celery(place: Place) -> None:
    """A DAG run succeeds, with a task by a Celery worker and one that defers."""
    sql = on_postgresql(place)
    server = Server(place, "CeleryExecutor", "dag_of_airflow_3.py")
    # Else the DAG processor stops on macOS, shim or not (apache/airflow #62512).
    place.environ["AIRFLOW__DAG_PROCESSOR__STALE_BUNDLE_CLEANUP_INTERVAL"] = "0"
    place.finish("airflow", "db", "migrate")
    place.start("airflow", "api-server")
    place.until("the API answers", server.version)
    start_and_succeed(place, sql, "scheduler", "dag-processor", "triggerer", "celery worker -c 2")


def airflow_3_server(*options: str, seconds: float = 300) -> Callable[[Place], None]:
    """The API server answers twenty times."""

    def work(place: Place) -> None:
        server = Server(place, "LocalExecutor", "dag_of_airflow_3.py")
        if "-D" in options:
            place.end_daemons()
        place.finish("airflow", "db", "migrate")
        # uvicorn ends workers that take long to start, as they do before there is bytecode.
        place.finish("python", "-c", "import airflow.api_fastapi.main")
        place.start("airflow", "api-server", *options)
        place.until("the API answers", server.version, seconds)
        for _ in range(20):
            server.version()

    return work


def airflow_3_lineage(place: Place) -> None:
    """A DAG run succeeds, and DataHub's plugin writes its lineage into a file."""
    metadata = place.directory / "metadata.json"
    connection = {"conn_type": "datahub-file", "host": str(metadata)}
    place.environ.update(
        AIRFLOW__DATAHUB__CONN_ID="datahub_file_default",
        AIRFLOW_CONN_DATAHUB_FILE_DEFAULT=json.dumps(connection),
        DATAHUB_TELEMETRY_ENABLED="false",
    )
    server = Server(place, "LocalExecutor", "dag_with_lineage.py")
    place.start("airflow", "standalone")
    server.succeeds(server.trigger())

    def lineage() -> bool:
        records = json.loads(metadata.read_text())
        written = json.dumps([r for r in records if r.get("aspectName") == "dataJobInputOutput"])
        return all(name in written for name in ("shop.orders", "bucket/orders", "shop.totals"))

    place.until("the lineage is in the file", lineage)


# --- the rows

FORKS_ANEW = "the macOS code, run here, dies only where it was loaded before the fork"
AS_THE_LOGS = (
    "the macOS code runs with the row of the logs; all of Airflow with both would take too long"
)
NEVER_REACHED = "nothing of setproctitle is reached after a fork"

# What is newer is not installed.
AIRFLOW_2 = "2025-03-01"
AIRFLOW_3 = "2025-07-15"
NEWEST = "2026-12-01"

CONSUMERS = [
    *(
        Consumer(
            program="gunicorn",
            version="23.0.0",
            setup=setup,
            does="100 requests are answered",
            requirements=["gunicorn==23.0.0", *more],
            work=gunicorn(*setup.split()),
            symptom=b"was sent SIGSEGV!",
            titles=titles,
            slow=setup != "-k sync",
        )
        for setup, more, titles in (
            ("-k sync", [], ["gunicorn: master [wsgi", "gunicorn: worker [wsgi"]),
            ("-k gevent", ["gevent"], []),
            ("--preload", [], []),
        )
    ),
    *(
        Consumer(
            program="multiprocessing",
            version="of Python",
            setup=f"start method {how}",
            does="50 children end well",
            requirements=[],
            work=children(how),
            symptom=b"exitcode=-SIGSEGV",
            slow=how != "fork",
        )
        for how in ("fork", "forkserver")
    ),
    Consumer(
        program="RQ",
        version="3.0.0",
        does="five jobs are done",
        requirements=["rq==3.0.0"],
        exclude_newer=NEWEST,
        work=rq,
        symptom=b"waitpid returned 11 (signal 11)",
        needs=["redis-server"],
    ),
    Consumer(
        program="django-q2",
        version="1.11.1",
        does="five tasks are done",
        requirements=["django-q2==1.11.1", "django<6", "redis"],
        exclude_newer=NEWEST,
        work=django_q,
        needs=["redis-server"],
    ),
    Consumer(
        program="Mitogen for Ansible",
        version="0.3.54",
        does="a playbook ends",
        requirements=["mitogen==0.3.54", "ansible-core<2.20"],
        exclude_newer=NEWEST,
        work=mitogen,
        enough=2,
        gives_up=False,
        note="Without the shim it waits for ever.",
    ),
    Consumer(
        program="Celery",
        version="5.6.3",
        setup="with billiard 4.2.4",
        does="40 tasks are answered",
        requirements=["celery[redis]==5.6.3", "billiard==4.2.4"],
        exclude_newer=NEWEST,
        work=celery,
        symptom=b"exited with 'signal 11 (SIGSEGV)'",
        needs=["redis-server"],
        titles=["[celeryd: celery@"],
    ),
    Consumer(
        program="Airflow",
        version="2.10.5",
        setup="standalone, SequentialExecutor",
        does="a DAG run succeeds, the webserver answers",
        requirements=["apache-airflow==2.10.5"],
        work=airflow_2_standalone,
        exclude_newer=AIRFLOW_2,
        symptom=b"was sent SIGSEGV!",
        gives_up=False,
        no_macos_code=AS_THE_LOGS,
    ),
    Consumer(
        program="Airflow",
        version="2.10.5",
        setup="scheduler, Celery worker",
        does="a DAG run succeeds",
        requirements=["apache-airflow[postgres,celery,redis]==2.10.5"],
        work=airflow_2("CeleryExecutor", "celery worker -c 2"),
        exclude_newer=AIRFLOW_2,
        symptom=b"exited with 'signal 11 (SIGSEGV)'",
        gives_up=False,
        needs=["psql", "redis-server"],
        no_macos_code=AS_THE_LOGS,
    ),
    Consumer(
        program="Airflow",
        version="3.0.2",
        setup="standalone, LocalExecutor",
        does="logs of a running and of a deferred task can be read",
        requirements=["apache-airflow==3.0.2"],
        work=airflow_3_logs,
        exclude_newer=AIRFLOW_3,
        symptom=b"was sent SIGSEGV!",
        gives_up=False,
        note="The DAG run succeeds without the shim, too.",
    ),
    Consumer(
        program="Airflow",
        version="3.0.2",
        setup="CeleryExecutor",
        does="a DAG run succeeds",
        requirements=["apache-airflow[postgres,celery,redis]==3.0.2"],
        work=airflow_3_celery,
        exclude_newer=AIRFLOW_3,
        symptom=b"signal 11 (SIGSEGV)",
        gives_up=False,
        needs=["psql", "redis-server"],
        no_macos_code=AS_THE_LOGS,
    ),
    Consumer(
        program="Airflow",
        version="3.0.2",
        setup="api-server -D",
        does="the API answers",
        requirements=["apache-airflow==3.0.2"],
        work=airflow_3_server("-D", seconds=100),
        exclude_newer=AIRFLOW_3,
        enough=2,
        no_macos_code=FORKS_ANEW,
    ),
    # --- programs that need nothing
    Consumer(
        program="multiprocessing",
        version="of Python",
        setup="by default",
        does="50 children end well",
        requirements=[],
        work=children(),
        group=NEEDS_NOTHING,
    ),
    Consumer(
        program="gunicorn",
        version="27.0.1",
        does="100 requests are answered",
        requirements=["gunicorn==27.0.1"],
        exclude_newer=NEWEST,
        work=gunicorn(),
        group=NEEDS_NOTHING,
    ),
    Consumer(
        program="Celery",
        version="5.7.0",
        setup="with billiard 4.3.2",
        does="40 tasks are answered",
        requirements=["celery[redis]==5.7.0", "billiard==4.3.2"],
        exclude_newer=NEWEST,
        work=celery,
        group=NEEDS_NOTHING,
        needs=["redis-server"],
    ),
    Consumer(
        program="Airflow",
        version="3.3.2",
        setup="standalone, LocalExecutor",
        does="a DAG run succeeds",
        requirements=["apache-airflow==3.3.2"],
        exclude_newer=NEWEST,
        work=airflow_3_standalone,
        group=NEEDS_NOTHING,
        no_macos_code=AS_THE_LOGS,
    ),
    Consumer(
        program="Airflow",
        version="3.0.2",
        setup="api-server --workers 2",
        does="the API answers",
        requirements=["apache-airflow==3.0.2"],
        work=airflow_3_server("--workers", "2"),
        exclude_newer=AIRFLOW_3,
        group=NEEDS_NOTHING,
        alone="uvicorn kills workers that take more than five seconds to start",
        no_macos_code=AS_THE_LOGS,
    ),
    # --- programs that fail on a Mac, with the shim and without
    Consumer(
        program="Celery",
        version="5.6.3",
        setup="with billiard 4.3.2",
        does="40 tasks are answered",
        requirements=["celery[redis]==5.6.3", "billiard==4.3.2"],
        exclude_newer=NEWEST,
        work=celery,
        group=FAILS_ANYWAY,
        symptom=b"ValueError: not enough values to unpack (expected 3, got 0)",
        needs=["redis-server"],
        no_macos_code=NEVER_REACHED,
        note="`pip install 'billiard<4.3'` mends it, with the shim (celery/celery #10683).",
    ),
    Consumer(
        program="Airflow",
        version="2.10.5",
        setup="scheduler, LocalExecutor",
        does="a DAG run succeeds",
        requirements=["apache-airflow[postgres,celery,redis]==2.10.5"],
        work=airflow_2("LocalExecutor"),
        exclude_newer=AIRFLOW_2,
        group=FAILS_ANYWAY,
        symptom=b"'QueuedLocalWorker' object has no attribute 'wrapper'",
        gives_up=False,
        needs=["psql", "redis-server"],
        no_macos_code=AS_THE_LOGS,
        note="Its workers are spawned on macOS, and fail (apache/airflow #45235).",
    ),
]

# What is shown to work beside the shim, and proves nothing else.
COMPATIBLE = Consumer(
    program="DataHub's plugin",
    version="1.4.0",
    setup="Airflow 3.0.2",
    does="a DAG run succeeds, its lineage is written",
    requirements=[
        "apache-airflow==3.0.2",
        "acryl-datahub-airflow-plugin[airflow3,datahub-file]==1.4.0",
        *(
            f"--exclude-newer-package={name}=2026-03-01"
            for name in ("acryl-datahub", "acryl-datahub-airflow-plugin", "sqlglot", "sqlglotrs")
        ),
    ],
    work=airflow_3_lineage,
    exclude_newer=AIRFLOW_3,
)
