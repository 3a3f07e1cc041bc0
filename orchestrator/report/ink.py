"""The colours and lines of every picture, and a figure as an element of a page.
In: a matplotlib figure. Out: its <svg> element, inked with the page's CSS variables.
The pictures of a report and of a simulation are drawn with it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INK, MUTED, FAINT, PAPER = "#1c2733", "#5d6b7a", "#d5dbe1", "#ffffff"
ZONES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's palette, which people with any colour vision can tell apart."""
FORECAST = (0, (3, 1.2))
STYLE = {
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.4,
    "legend.borderaxespad": 0,
    "hatch.linewidth": 0.7,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": "lowtide",
}


@contextmanager
def inked() -> Iterator[None]:
    """Figures made and saved inside have the style."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def element(figure: Callable[[], Any]) -> str:
    """What `figure` draws as an <svg> element of the page's width, whose colours follow the page's theme."""
    with inked():
        buffer = io.StringIO()
        figure().savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue()[buffer.getvalue().index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", drawn)
    drawn = re.sub(r'<svg width="[^"]*" height="[^"]*"', '<svg width="100%"', drawn, count=1)
    zones = {f"zone-{position}": colour for position, colour in enumerate(ZONES)}
    for name, colour in {"ink": INK, "muted": MUTED, "faint": FAINT, "paper": PAPER, **zones}.items():
        drawn = drawn.replace(colour, f"var(--{name}, {colour})")
    return drawn
