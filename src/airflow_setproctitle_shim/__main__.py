"""python -m airflow_setproctitle_shim: the command line."""

import sys

from .cli import main

sys.exit(main())
