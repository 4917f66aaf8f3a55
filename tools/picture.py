"""Draws what `probe` shows, without the shim and with it, as an SVG.

python tools/picture.py [FILE]      (default: docs/probe.svg)
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.sax.saxutils import escape

from airflow_setproctitle_shim.diagnosis import probe

ROOT = Path(__file__).parent.parent
CHILDREN = 20
STEP = 34  # from one child to the next
WIDTH = 2 * 24 + CHILDREN * STEP
HEIGHT = 250

# Its own background in light and dark, so that it can be read on any page.
STYLE = """
    text { font: 15px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1f2328 }
    .back { fill: #f6f8fa; stroke: #d1d9e0 }
    .note { font-size: 13px; fill: #59636e }
    .lost { fill: #cf222e }
    .ok { fill: #1a7f37 }
    .mark { fill: none; stroke: #ffffff; stroke-width: 2.5; stroke-linecap: round; stroke-linejoin: round }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc }
      .back { fill: #151b23; stroke: #3d444d }
      .note { fill: #9198a1 }
      .lost { fill: #da3633 }
      .ok { fill: #238636 }
    }
"""
MARKS = {"ok": "M-5,0 l4,4 l6,-8", "lost": "M-4,-4 l8,8 M4,-4 l-8,8"}


def picture(off: probe.Run, on: probe.Run, note: str) -> str:
    """Return the SVG of a run without the shim and one with it."""
    body = [
        f'<rect class="back" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>',
        text(36, "$ airflow-setproctitle-shim probe"),
        *row(84, "without the shim", off),
        *row(158, "with the shim", on),
        text(HEIGHT - 20, note, "note"),
    ]
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"  <title>Without the shim {off}; with the shim {on}.</title>",
        f"  <style>{STYLE}  </style>",
        *(f"  {line}" for line in body),
        "</svg>\n",
    ]
    return "\n".join(lines)


def row(y: int, label: str, run: probe.Run) -> list[str]:
    """Return a line of text and below it a mark for each child, the lost ones first."""
    lines = [text(y, f"{label}: {run}")]
    for number in range(run.children):
        kind = "lost" if number < run.lost else "ok"
        place = f'transform="translate({24 + number * STEP + STEP // 2},{y + 28})"'
        lines.append(f'<g {place}><circle class="{kind}" r="12"/><path class="mark" d="{MARKS[kind]}"/></g>')
    return lines


def text(y: int, words: str, kind: str = "plain") -> str:
    """Return a line of text at the left."""
    return f'<text class="{kind}" x="28" y="{y}">{escape(words)}</text>'


def main() -> None:
    """Probe, and write the picture."""
    simulate = sys.platform != "darwin"
    runs = probe.probe(CHILDREN, timeout=60, threads=0, titles=False, simulate=simulate)
    note = "Simulated: a stand-in dies after fork as setproctitle does on macOS." if simulate else "On macOS."
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/probe.svg"
    target.write_text(picture(*runs, note))


if __name__ == "__main__":
    main()
