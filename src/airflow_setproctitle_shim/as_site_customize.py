"""Switches airflow-setproctitle-shim on where Python reads no startup files (pip --target, PYTHONPATH).

Put it into a directory on PYTHONPATH. `site` imports the first sitecustomize it finds, at every
interpreter start; this one then runs the one that it hides, as if it were not there.
"""

import os
import sys


def switch_on() -> None:
    """Switch the shim on, where it is installed: on macOS, unless AIRFLOW_SETPROCTITLE_SHIM says off."""
    try:
        from airflow_setproctitle_shim import startup
    except ImportError:
        return
    startup()


def run_hidden() -> None:
    """Run the next sitecustomize on sys.path, if any. What it raises is its own affair, and raised."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = os.path.dirname(os.path.abspath(__file__))
    places = [os.path.abspath(place) for place in sys.path]
    if here not in places:
        return
    spec = PathFinder.find_spec(__name__, sys.path[places.index(here) + 1 :])
    if spec is None or spec.loader is None:
        return
    # From here on `import sitecustomize` means the hidden one, as it would without us.
    sys.modules[__name__] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


switch_on()
run_hidden()
