"""A DAG for Airflow 2: it runs once, by itself, with a task and one that defers."""

from datetime import datetime, timedelta

from airflow import DAG
from airflow.models.baseoperator import BaseOperator
from airflow.operators.bash import BashOperator
from airflow.triggers.temporal import TimeDeltaTrigger


class Deferring(BaseOperator):
    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=1)), method_name="resumed")

    def resumed(self, context, event=None):
        return "done"


with DAG(
    "work",
    start_date=datetime(2024, 1, 1),
    schedule="@once",
    catchup=False,
    is_paused_upon_creation=False,
):
    BashOperator(task_id="task", bash_command="true")
    Deferring(task_id="deferring")
