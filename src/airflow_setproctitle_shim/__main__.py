"""python -m airflow_setproctitle_shim: the command line."""

import sys

from .diagnosis.cli import main

sys.exit(main())
