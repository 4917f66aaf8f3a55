"""What Airflow loads by entry point: the second switch, for when the startup file was not run.

Airflow >= 2.6 imports this in settings.initialize(), in every process and before executors are
imported (entry point group "airflow.policy"). Nothing here may raise: Airflow would not start.
"""

from __future__ import annotations

import logging

from . import finder, is_active, lineage, startup

log = logging.getLogger(__name__)


def switch_on() -> None:
    """Do what the startup file should have done; a warning says why it did not, and what helps."""
    ran_at_start = finder.started
    startup()
    if ran_at_start or not is_active():
        return
    try:
        from .diagnosis.status import why_skipped

        reason, fixes = why_skipped()
        why = "; see: python -m airflow_setproctitle_shim status"
        if reason:
            why = f": {reason}."
            if fixes:
                why += f" Mend it with: {fixes[0]}"
    except Exception as error:  # noqa: BLE001  # as above
        why = f"; the reason could not be found out ({type(error).__name__}: {error})"
    log.warning(
        "airflow-setproctitle-shim was switched on late, by Airflow, not at interpreter start%s",
        why,
    )


switch_on()
lineage.offer()
