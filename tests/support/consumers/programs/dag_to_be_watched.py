"""A DAG for Airflow 3: a task that runs, and one that is deferred, until a file `go` is in AIRFLOW_HOME."""

import os
import time
from datetime import datetime

from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.triggers.file import FileTrigger
from airflow.sdk import DAG, BaseOperator

GO = os.path.join(os.environ["AIRFLOW_HOME"], "go")


class Deferring(BaseOperator):
    def execute(self, context):
        self.defer(trigger=FileTrigger(GO, poke_interval=0.5), method_name="resumed")

    def resumed(self, context, event=None):
        return "done"


def wait():
    print("this task runs", flush=True)
    while not os.path.exists(GO):
        time.sleep(0.3)


with DAG("work", start_date=datetime(2024, 1, 1), schedule=None, is_paused_upon_creation=False):
    PythonOperator(task_id="running", python_callable=wait)
    Deferring(task_id="deferred")
