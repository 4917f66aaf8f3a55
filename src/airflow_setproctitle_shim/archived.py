"""Loads replacement.py as `setproctitle` when the package lies in a zip archive. Imported only then."""

import importlib.abc
import pkgutil

from . import REPLACEMENT


class ArchivedLoader(importlib.abc.ExecutionLoader):
    """Reads the source through the archive's own loader."""

    def get_source(self, fullname: str) -> str:
        """Return replacement.py's source; raises OSError if the archive is gone."""
        source = pkgutil.get_data(__package__, "replacement.py")
        assert source is not None
        return source.decode()

    def get_filename(self, fullname: str) -> str:
        """Return where the source lies: archive and path in it."""
        return REPLACEMENT

    def is_package(self, fullname: str) -> bool:
        """Return True: setproctitle is a package."""
        return True
