"""Fork-safe titles for `ps`, by processtitle. Imported by replacement.py in titles mode only."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable


@functools.cache
def _set_to() -> Callable[[str], object]:
    """Return processtitle's set_to(), prepared; preparing it a second time would raise."""
    import processtitle

    # Without fork_safe_only it would make the LaunchServices calls that crash after fork.
    processtitle.prepare(fork_safe_only=True)
    return processtitle.set_to


def shown(remember: Callable[[str], None]) -> Callable[[str], None]:
    """Return setproctitle() that remembers a title by `remember` and also shows it in `ps`.

    Where processtitle cannot show it, one RuntimeWarning says why, and titles are only remembered.
    """
    show: Callable[[str], object] | None = None

    @functools.wraps(remember)
    def setproctitle(title: str) -> None:
        nonlocal show
        remember(title)
        try:
            # At the first title, so that a process that sets none pays nothing.
            show = show or _set_to()
            show(title)
        except Exception as error:  # noqa: BLE001  # a title is never worth an exception in a worker
            show = bool
            warnings.warn(
                f"AIRFLOW_SETPROCTITLE_SHIM=titles shows no titles: {type(error).__name__}: {error}. "
                "Mend it with: pip install 'airflow-setproctitle-shim[titles]'",
                RuntimeWarning,
                stacklevel=2,
            )

    return setproctitle
