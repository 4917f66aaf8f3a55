"""A DAG for Airflow 3 whose task has inlets and outlets for DataHub's plugin."""

from datetime import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from datahub_airflow_plugin.entities import Dataset, Urn

with DAG("work", start_date=datetime(2024, 1, 1), schedule=None, is_paused_upon_creation=False):
    BashOperator(
        task_id="lineage",
        bash_command="true",
        inlets=[
            Dataset(platform="snowflake", name="shop.orders"),
            Urn("urn:li:dataset:(urn:li:dataPlatform:s3,bucket/orders,PROD)"),
        ],
        outlets=[Dataset(platform="snowflake", name="shop.totals")],
    )
