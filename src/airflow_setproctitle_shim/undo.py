"""What deactivate() does, under the finder's lock. Imported only then."""

import sys

from . import SERVED, finder, is_active, is_ours


def undo() -> None:
    """Take the finder from sys.meta_path, and undo what it and neutralise.py did to modules."""
    while is_active():
        sys.meta_path.remove(finder)  # type: ignore[arg-type]  # A ModuleSpec is an object.
    if finder.neutralised:
        from .neutralise import restore

        restore()
    for name in SERVED:
        module = sys.modules.get(name)
        # py-setproctitle's Python layer over our functions is ours too.
        if is_ours(module) or is_ours(getattr(module, "_setproctitle", None)):
            del sys.modules[name]
