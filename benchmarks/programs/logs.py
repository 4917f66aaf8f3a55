"""Write a log of so many bytes that is made of one program's lines, read it as `doctor` does; print JSON."""

from __future__ import annotations

import datetime
import json
import sys
import tempfile
import time
from pathlib import Path

from airflow_setproctitle_shim.diagnosis import log_file

LINES = {
    "gunicorn": "[{at:%Y-%m-%d %H:%M:%S} +0000] [1] [ERROR] Worker (pid:{pid}) was sent SIGSEGV!",
    "celery": "[{at:%Y-%m-%d %H:%M:%S},{ms:03}: ERROR/MainProcess] Process 'ForkPoolWorker-{pid}' pid:{pid} exited with 'signal 11 (SIGSEGV)'",
    "airflow 2": "[{at:%Y-%m-%dT%H:%M:%S}.{ms:03}+0000] {{manager.py:285}} ERROR - DagFileProcessorManager (PID={pid}) exited with exit code -11 - re-launching",
    "airflow 3": "{at:%Y-%m-%d %H:%M:%S} [info     ] Process exited                 [supervisor] exit_code=<Negsignal.SIGSEGV: -11> pid={pid} signal_sent=SIGSEGV",
    "shell": "/usr/local/bin/run.sh: line 3: {pid} Segmentation fault: 11  gunicorn app",
    "no death": "[{at:%Y-%m-%d %H:%M:%S} +0000] [{pid}] [INFO] Booting worker with pid: {pid}",
}


def main() -> None:
    line, size = LINES[sys.argv[1]], int(sys.argv[2])
    start = datetime.datetime(2026, 11, 20)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "a.log")
        written = 0
        with path.open("w") as log:
            for number in range(10**9):
                at = start + datetime.timedelta(seconds=number * 0.37)
                written += log.write(line.format(at=at, ms=number % 1000, pid=1000 + number % 90_000) + "\n")
                if written >= size:
                    break
        logs = log_file.Logs(installed_at=start.timestamp() + 3600)
        before = time.perf_counter()
        log_file.read(path, "program", logs)
        seconds = time.perf_counter() - before
    deaths = sum(map(logs.total, ("before", "since", "undated")))
    print(json.dumps({"seconds": seconds, "deaths": deaths}))


main()
