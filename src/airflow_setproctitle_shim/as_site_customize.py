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
if "__path__" in globals():  # This is the __init__.py of a package.
    here = os.path.dirname(here)
places = [os.path.abspath(place) for place in sys.path]
if here in places:
    spec = PathFinder.find_spec(__name__, sys.path[places.index(here) + 1 :])
else:
    spec = None
    why = f"{here} is not on sys.path, so what it hides cannot be found, and is not run"
    print(f"{__file__}: {why}", file=sys.stderr)
if spec and spec.loader:
    # From here on `import sitecustomize` means the hidden one, as it would without us. What it
    # raises is its own affair, and raised.
    if hasattr(spec.loader, "exec_module"):
        sys.modules[__name__] = module = module_from_spec(spec)
        spec.loader.exec_module(module)
    else:  # in an archive, before Python 3.10
        del sys.modules[__name__]
        spec.loader.load_module(__name__)
