"""A Django project with django-q2: settings, and a program that queues five tasks and waits until they are done."""

import os
import sys
import time

SECRET_KEY = "for tests"
INSTALLED_APPS = ["django_q"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "django.sqlite3",
        "OPTIONS": {"timeout": 30},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
Q_CLUSTER = {"name": "work", "workers": 2, "redis": os.environ.get("BROKER", "")}


def double(number):
    return 2 * number


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "django_q_work"
    if sys.argv[1:]:
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    else:
        import django

        django.setup()
        from django_q.tasks import async_task, result

        tasks = [async_task("django_q_work.double", number) for number in range(5)]
        while None in (answers := [result(task) for task in tasks]):
            time.sleep(0.3)
        assert answers == [2 * number for number in range(5)]
