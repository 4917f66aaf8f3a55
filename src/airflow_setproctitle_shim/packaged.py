"""Serves the replacement where it is no file: in archives, frozen and compiled programs. Imported only there."""

import importlib.abc
from types import ModuleType

from . import replacement


class PackagedLoader(importlib.abc.InspectLoader):
    """Gives a module the names of airflow_setproctitle_shim.replacement, imported as all else is there."""

    def exec_module(self, module: ModuleType) -> None:
        own = ("__name__", "__package__", "__loader__", "__spec__")
        vars(module).update({name: value for name, value in vars(replacement).items() if name not in own})

    def get_source(self, fullname):  # type: (str) -> str | None
        get_source = getattr(replacement.__spec__.loader, "get_source", lambda name: None)  # only bytecode
        return get_source(replacement.__name__)


loader = PackagedLoader()
