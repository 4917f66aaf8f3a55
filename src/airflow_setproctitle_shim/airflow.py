"""What Airflow loads by entry point: the second switch, for when the startup file was not run, and
the constants that Airflow 3 dropped from airflow.lineage.

Airflow >= 2.6 imports this in settings.initialize(), in every process and before executors are
imported (entry point group "airflow.policy"). Nothing here may raise: Airflow would not start.
"""

from __future__ import annotations

import logging

from . import OFF, VARIABLE, is_active, setting, startup

log = logging.getLogger(__name__)

# As Airflow 2's airflow.lineage has them: import them from here, with any Airflow or none.
PIPELINE_OUTLETS = "pipeline_outlets"
PIPELINE_INLETS = "pipeline_inlets"
AUTO = "auto"

LINEAGE_VARIABLE = VARIABLE + "_LINEAGE"
LINEAGE_ON = ("1", "on", "true", "yes")


def switch_on() -> None:
    """Do what the startup file should have done, and log one warning saying why it did not."""
    if is_active():
        return
    startup()
    if is_active():
        log.warning("%s", _explanation())


def _explanation() -> str:
    """Return what kept the startup file from running and the command that mends it."""
    late = "airflow-setproctitle-shim was switched on late, by Airflow, not at interpreter start"
    try:
        from .diagnosis.state import startup_file_skipped

        finding = startup_file_skipped()
    except Exception as error:  # noqa: BLE001  # Airflow would not start
        return f"{late}; the reason could not be found out ({type(error).__name__}: {error})"
    if finding is None:
        return f"{late}; see: python -m airflow_setproctitle_shim status"
    return f"{late}: {finding.evidence}. Mend it with: {finding.remedy}"


def offer_lineage() -> None:
    """Put the constants back on airflow.lineage at its import if AIRFLOW_SETPROCTITLE_SHIM_LINEAGE says so.

    Off by default, because plugins take the ImportError for the sign of Airflow 3. Never raises.
    """
    value = setting(LINEAGE_VARIABLE)
    if value in LINEAGE_ON:
        try:
            from wrapt import when_imported

            when_imported("airflow.lineage")(add_lineage)
        except Exception as error:  # noqa: BLE001  # Airflow would not start
            log.warning("%s=%s has no effect: %s: %s", LINEAGE_VARIABLE, value, type(error).__name__, error)
    elif value not in ("", *OFF):
        accepted = ", ".join(LINEAGE_ON + OFF)
        log.warning("%s=%r is not one of %s; it is taken as 'off'", LINEAGE_VARIABLE, value, accepted)


def add_lineage(module: object) -> None:
    """Give `module` those of the constants that cannot be had from it."""
    for name in ("PIPELINE_OUTLETS", "PIPELINE_INLETS", "AUTO"):
        try:
            getattr(module, name)
        except Exception:  # noqa: BLE001  # a module's own __getattr__ may raise ImportError
            setattr(module, name, globals()[name])


switch_on()
offer_lineage()
