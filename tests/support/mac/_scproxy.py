"""What urllib asks a Mac for its proxies: there are none. Copied into environments that play a Mac."""

from __future__ import annotations


def _get_proxies() -> dict[str, str]:
    return {}


def _get_proxy_settings() -> dict[str, object]:
    return {"exclude_simple": False, "exceptions": ()}
