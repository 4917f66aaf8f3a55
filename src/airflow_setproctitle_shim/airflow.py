"""What Airflow loads by entry point: the second switch, for when the startup file was not run.

Airflow >= 2.6 imports this in settings.initialize(), in every process and before executors are
imported (entry point group "airflow.policy"). Nothing here may raise: Airflow would not start.
"""

from __future__ import annotations

import logging

from . import finder, is_active, lineage, startup

log = logging.getLogger(__name__)


def switch_on() -> None:
    """Do what the startup file should have done, and log one warning saying why it did not."""
    ran_at_start = finder.started
    startup()
    if is_active() and not ran_at_start:
        log.warning("%s", _explanation())


def _explanation() -> str:
    """Return what kept the startup file from running and the command that mends it."""
    late = "airflow-setproctitle-shim was switched on late, by Airflow, not at interpreter start"
    try:
        from .diagnosis.state import startup_file

        _, wrong = startup_file()
    except Exception as error:  # noqa: BLE001  # Airflow would not start
        return f"{late}; the reason could not be found out ({type(error).__name__}: {error})"
    if not wrong:
        return f"{late}; see: python -m airflow_setproctitle_shim status"
    return f"{late}: {wrong[0].evidence}. Mend it with: {wrong[0].remedy}"


switch_on()
lineage.offer()
