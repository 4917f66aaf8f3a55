"""Switches the shim on when N modules are loaded and some hold native functions; prints what it took.

Run as: late.py N. Every tenth module has done `from setproctitle import setproctitle`.
"""

import importlib
import json
import sys
import time
import types
from collections.abc import Callable

import setproctitle

import airflow_setproctitle_shim as shim

# With what they import, they stand for what every large program has loaded.
for name in ("asyncio", "importlib.metadata", "unittest.mock"):
    importlib.import_module(name)

GLOBALS = 60  # more than Airflow's modules have, see the section miss


def main(count: int) -> None:
    """Print the seconds of the first and of a second activation, and how many places were rebound."""
    native = setproctitle.setproctitle
    loaded = [types.ModuleType(f"loaded{number}") for number in range(count)]
    for number, module in enumerate(loaded):
        module.__dict__.update((f"name{index}", index) for index in range(GLOBALS))
        if number % 10 == 0:
            module.__dict__["setproctitle"] = native
        sys.modules[module.__name__] = module
    first = timed(shim.activate)
    places = sum(vars(module).get("setproctitle", native) is not native for module in loaded)
    shim.deactivate()
    assert all(vars(module).get("setproctitle", native) is native for module in loaded)
    print(json.dumps({"first": first, "again": timed(shim.activate), "places": places}))


def timed(function: Callable[[], None]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


main(int(sys.argv[1]))
