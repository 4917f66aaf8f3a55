"""Fork-safe titles for `ps`, by processtitle. Imported by replacement.py in titles mode only."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

INSTALL = "pip install 'airflow-setproctitle-shim[titles]'"


@functools.cache
def _setter() -> Callable[[str], object] | None:
    """Return processtitle's set_to(), prepared for fork, or None after warning why it cannot be had."""
    try:
        import processtitle

        # Without fork_safe_only it would make the LaunchServices calls that crash after fork.
        processtitle.prepare(fork_safe_only=True)
        return processtitle.set_to
    except Exception as error:  # noqa: BLE001  # a title is never worth an exception in a worker
        warnings.warn(
            f"AIRFLOW_SETPROCTITLE_SHIM=titles shows no titles: {type(error).__name__}: {error}. "
            f"Mend it with: {INSTALL}",
            RuntimeWarning,
            stacklevel=4,
        )
        return None


def shown(remember: Callable[[str], None]) -> Callable[[str], None]:
    """Return setproctitle() that remembers a title by `remember` and shows it in `ps`."""

    @functools.wraps(remember)
    def setproctitle(title: str) -> None:
        remember(title)
        show = _setter()
        if show is not None:
            show(title)

    return setproctitle
