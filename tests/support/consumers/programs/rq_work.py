"""RQ's jobs; run as a program, it enqueues five and waits until they are done."""

import os
import time

from redis import Redis
from rq import Queue


def double(number):
    return 2 * number


if __name__ == "__main__":
    queue = Queue(connection=Redis.from_url(os.environ["BROKER"]))
    jobs = [queue.enqueue("rq_work.double", number) for number in range(5)]
    while not all(job.is_finished for job in jobs):
        assert not any(job.is_failed for job in jobs)
        time.sleep(0.1)
