"""Serves the replacement where it is no file: in archives, frozen and compiled programs. Imported only there."""

import importlib.abc
from types import ModuleType


class PackagedLoader(importlib.abc.InspectLoader):
    """Gives a module the names of airflow_setproctitle_shim.replacement, which is imported as all else there."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module. Raises ImportError if the package was left without replacement."""
        from . import replacement

        own = {"__name__", "__package__", "__loader__", "__spec__", "__file__", "__path__", "__cached__"}
        module.__dict__.update((name, value) for name, value in vars(replacement).items() if name not in own)

    def get_source(self, fullname):  # type: (str) -> str | None
        """Return the replacement's source, None where only its bytecode was packed."""
        from . import replacement

        get_source = getattr(replacement.__spec__.loader, "get_source", None)
        return get_source(replacement.__name__) if get_source else None

    def is_package(self, fullname: str) -> bool:
        """Return whether it is setproctitle, not its C module."""
        return fullname == "setproctitle"


loader = PackagedLoader()
