"""Makes a Linux process see macOS. Copied into an environment, whose first startup file calls play().

It runs at the start of each Python process, before anything else: only what is loaded by then is imported.
"""

import os
import sys

# In the names of modules that only a Mac has. One that is played lies where it can be found.
ONLY_A_MAC_HAS = ("osx", "darwin", "macos", "fsevents", "scproxy", "appkit", "corefoundation")
# What a process says that is ended because it asks for such a module.
NOT_PLAYED = "the simulated Mac does not play the module"


def play() -> None:
    """Make this process see macOS from now on."""
    here = os.uname()
    kernel = ("24.6.0", "Darwin Kernel Version 24.6.0")
    mac = os.uname_result(("Darwin", here.nodename, *kernel, here.machine))
    os.uname = lambda: mac
    sys.platform = "darwin"
    if sys.implementation.name == "pypy":
        # Its own stands in its standard library, and needs Apple's libraries.
        sys.path.insert(0, os.path.dirname(__file__))
        __import__("_scproxy")

        del sys.path[0]
    sys.meta_path.append(NothingForgotten())


class NothingForgotten:
    """The last meta path finder: who asks for what only a Mac has is ended, so that nobody can overlook it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if any(word in name.lower() for word in ONLY_A_MAC_HAS):
            # No exception: whoever tries an import would catch it and go on in another way than a Mac's.
            os.write(2, f"{NOT_PLAYED} {name}\n".encode())
            os.abort()
