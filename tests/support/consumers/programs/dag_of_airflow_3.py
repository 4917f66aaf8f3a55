"""A DAG for Airflow 3: it runs once, by itself, with a task and one that defers."""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator


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
