"""The names that people gave to colours in a survey: 949 short phrases, such as "dusty rose".

From xkcd.com/color/rgb (Randall Munroe, 2010; CC0), as matplotlib carries them.
"""

from __future__ import annotations

from training.datasets.splitting import Fractions
from training.datasets.text import Lines, in_memory


def open_names(fractions: Fractions) -> Lines:
    """A name an example, split at random."""
    from matplotlib.colors import XKCD_COLORS  # slow to import, and only needed here

    names = [name.removeprefix("xkcd:") for name in XKCD_COLORS]
    return Lines(in_memory("color_names", "\n".join(names)), fractions)
