"""python -m airflow_setproctitle_shim, and the command airflow-setproctitle-shim."""

import _signal  # type: ignore[import-not-found]  # what signal is made of, loaded already

# Ctrl-C ends it as it ends any program: at once, and without a traceback.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import os
import sys

# `python -m` looks in the working directory first. As with `python -m pip`, no getopt.py there may
# run: nothing that is not loaded already may be imported before this.
try:
    if sys.path[:1] == [os.getcwd()]:
        del sys.path[0]
except OSError:  # The directory is gone.
    pass

from .diagnosis.cli import main

if __name__ == "__main__":
    sys.exit(main())
