"""The constants that Airflow 3 dropped from airflow.lineage: import them from here, with any Airflow or none."""

__all__ = ["AUTO", "PIPELINE_INLETS", "PIPELINE_OUTLETS"]

PIPELINE_OUTLETS = "pipeline_outlets"
PIPELINE_INLETS = "pipeline_inlets"
AUTO = "auto"
