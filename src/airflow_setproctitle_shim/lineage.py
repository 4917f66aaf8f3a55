"""The constants that Airflow 3 dropped from airflow.lineage.

Import them from here, with any Airflow or none.
"""

from __future__ import annotations

import logging

from . import OFF, VARIABLE, setting

PIPELINE_OUTLETS = "pipeline_outlets"
PIPELINE_INLETS = "pipeline_inlets"
AUTO = "auto"

LINEAGE_VARIABLE = VARIABLE + "_LINEAGE"
LINEAGE_ON = ("1", "on", "true", "yes")

log = logging.getLogger(__name__)


def offer() -> None:
    """Put the constants back on airflow.lineage at its import. Never raises.

    Only if AIRFLOW_SETPROCTITLE_SHIM_LINEAGE says so, because plugins take the ImportError for the
    sign of Airflow 3.
    """
    value = setting(LINEAGE_VARIABLE)
    if value in LINEAGE_ON:
        try:
            from wrapt import when_imported

            when_imported("airflow.lineage")(add_to)
        except Exception as error:  # noqa: BLE001  # Airflow would not start
            log.warning(
                "%s=%s has no effect: %s: %s", LINEAGE_VARIABLE, value, type(error).__name__, error
            )
    elif value not in ("", *OFF):
        accepted = ", ".join(LINEAGE_ON + OFF)
        log.warning(
            "%s=%r is not one of %s; it is taken as 'off'", LINEAGE_VARIABLE, value, accepted
        )


def add_to(module: object) -> None:
    """Give `module` those of the constants that cannot be had from it."""
    for name in ("PIPELINE_OUTLETS", "PIPELINE_INLETS", "AUTO"):
        try:
            getattr(module, name)
        except Exception:  # noqa: BLE001  # a module's own __getattr__ may raise ImportError
            setattr(module, name, globals()[name])
