"""Writes a log of such lines, reads it as `doctor` does, and prints what it took.

Run as: logs.py LINE BYTES. LINE is a format with {at}, {ms} and {pid}.
"""

from __future__ import annotations

import datetime
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

from airflow_setproctitle_shim.diagnosis import log_file


def main() -> None:
    line, size = sys.argv[1], int(sys.argv[2])
    start = datetime.datetime(2026, 11, 20)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "a.log")
        written = 0
        with path.open("w") as log:
            for number in itertools.count():
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
