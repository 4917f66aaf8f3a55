"""The shipped stand-in for setproctitle, which says in the file $NATIVE_CODE_LOG what becomes of it.

One line an event: process id, then `loaded` or `killed`, then the module or function.
"""

import importlib.util
import os
from pathlib import Path

_SHIPPED = Path(__file__).parents[4] / "src/airflow_setproctitle_shim/stand_in/setproctitle/__init__.py"
_spec = importlib.util.spec_from_file_location("_shipped_stand_in", _SHIPPED)
assert _spec and _spec.loader
_stand_in = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_stand_in)
_importer = os.getpid()

__version__ = _stand_in.__version__
__all__ = _stand_in.__all__
getproctitle = _stand_in.getproctitle
getthreadtitle = _stand_in.getthreadtitle
setthreadtitle = _stand_in.setthreadtitle


def _note(event: str, name: str) -> None:
    if "NATIVE_CODE_LOG" in os.environ:
        # One write in append mode: lines of several processes do not mix.
        log = os.open(os.environ["NATIVE_CODE_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(log, f"{os.getpid()} {event} {name}\n".encode())
        os.close(log)


def setproctitle(title: str) -> None:
    """Do what the shipped stand-in does; it kills the process if it was forked from the importing one."""
    if os.getpid() != _importer:
        _note("killed", "setproctitle")
    _stand_in.setproctitle(title)


_note("loaded", "setproctitle")
