"""Switches airflow-setproctitle-shim on where Python reads no startup files (pip install --target).

Put it into a directory on PYTHONPATH. `site` imports the first sitecustomize it finds, at every
interpreter start; this one then runs the one that it hides, as if it were not there.
"""

import os
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

with suppress(Exception):  # It may be missing, or broken.
    from airflow_setproctitle_shim import startup

    startup()  # on macOS, unless AIRFLOW_SETPROCTITLE_SHIM says off

here = os.path.dirname(os.path.abspath(__file__))
places = [os.path.abspath(place) for place in sys.path]
after = sys.path[places.index(here) + 1 :] if here in places else []
spec = PathFinder.find_spec(__name__, after)
if spec and spec.loader:
    # From here on `import sitecustomize` means the hidden one, as it would without us.
    sys.modules[__name__] = module = module_from_spec(spec)
    # What it raises is its own affair, and raised.
    spec.loader.exec_module(module)
