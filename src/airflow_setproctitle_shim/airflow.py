"""What Airflow loads by entry point: the second switch, for when the startup file was not run.

Airflow >= 2.6 imports this in settings.initialize(), in every process and before executors are
imported (entry point group "airflow.policy"). Nothing here may raise: Airflow would not start.
"""

from __future__ import annotations

import logging

from . import OFF, VARIABLE, finder, is_active, lineage, setting, startup

LINEAGE_VARIABLE = VARIABLE + "_LINEAGE"
LINEAGE_ON = ("1", "on", "true", "yes")

log = logging.getLogger(__name__)


def switch_on() -> None:
    """Do what the startup file should have done; a warning says why it did not, and what mends that."""
    ran_at_start = finder.started
    startup()
    if ran_at_start or not is_active():
        return
    try:
        from .diagnosis.state import startup_file

        _, wrong = startup_file()
        why = "; see: python -m airflow_setproctitle_shim status"
        if wrong:
            why = f": {wrong[0].evidence}. Mend it with: {wrong[0].remedy}"
    except Exception as error:  # noqa: BLE001  # as above
        why = f"; the reason could not be found out ({type(error).__name__}: {error})"
    log.warning("airflow-setproctitle-shim was switched on late, by Airflow, not at interpreter start%s", why)


def offer_lineage() -> None:
    """Put the constants back on airflow.lineage at its import, if AIRFLOW_SETPROCTITLE_SHIM_LINEAGE says so.

    Off by default, because plugins take the ImportError for the sign of Airflow 3.
    """
    value = setting(LINEAGE_VARIABLE)
    if value in LINEAGE_ON:
        try:
            from wrapt import when_imported

            when_imported("airflow.lineage")(_complete)
        except Exception as error:  # noqa: BLE001  # as above
            log.warning("%s=%s has no effect: %s: %s", LINEAGE_VARIABLE, value, type(error).__name__, error)
    elif value not in ("", *OFF):
        accepted = ", ".join(LINEAGE_ON + OFF)
        log.warning("%s=%r is not one of %s; it is taken as 'off'", LINEAGE_VARIABLE, value, accepted)


def _complete(module: object) -> None:
    """Give airflow.lineage those of the constants that cannot be had from it."""
    for name in lineage.__all__:
        try:
            getattr(module, name)
        except Exception:  # noqa: BLE001  # a module's own __getattr__ may raise ImportError
            setattr(module, name, getattr(lineage, name))


switch_on()
offer_lineage()
