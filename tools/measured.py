"""docs/measured.json: the one file of what was measured. Tests and the benchmark write it, tools/pages.py reads it.

Its keys:

consumers    what became of real programs without the shim and with it (tests/support/consumers)
macos        which of Apple's functions each release of setproctitle calls (tests/support/macos_code/table.py)
benchmark    what the shim costs (benchmarks/run.py)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent.parent / "docs/measured.json"


def read(key: str, file: Path = FILE) -> Any:
    """Return what stands under the key. Raises KeyError where it was never measured."""
    return json.loads(file.read_text(encoding="utf-8"))[key]


def write(key: str, value: object, file: Path = FILE) -> None:
    """Put a new value under the key. Who may run beside another writer holds a lock."""
    all_of_it = json.loads(file.read_text(encoding="utf-8")) | {key: value}
    text = json.dumps(all_of_it, indent=1, ensure_ascii=False)
    file.write_text(f"{text}\n", encoding="utf-8")
