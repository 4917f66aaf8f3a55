"""Starts fifty children, one after the other, in the way that is named or else by default; each sets its title."""

import multiprocessing
import sys

from setproctitle import getproctitle, setproctitle


def title(number):
    setproctitle(f"child {number}")
    assert getproctitle() == f"child {number}"


if __name__ == "__main__":
    context = multiprocessing.get_context(*sys.argv[1:])
    context.set_forkserver_preload(["setproctitle"])
    for number in range(50):
        child = context.Process(target=title, args=(number,))
        child.start()
        child.join()
        assert child.exitcode == 0, child
