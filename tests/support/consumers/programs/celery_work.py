"""Celery's tasks; run as a program, it asks for forty and checks the answers."""

import os

from celery import Celery, group

app = Celery("celery_work", broker=os.environ["BROKER"], backend=os.environ["BROKER"])


@app.task
def double(number):
    return 2 * number


if __name__ == "__main__":
    results = group(double.s(number) for number in range(40)).apply_async()
    assert results.get(timeout=300) == [2 * number for number in range(40)]
