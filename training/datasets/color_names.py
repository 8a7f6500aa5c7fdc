"""The names that people gave to colours in a survey: 949 short phrases, such as "dusty rose".

From xkcd.com/color/rgb (Randall Munroe, 2010; CC0), as matplotlib carries them.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator

from training.datasets.base import SPLITS
from training.datasets.examples import Example, Examples, Made
from training.datasets.splitting import Fractions

# Names of hues, each up to the degree of the colour circle that follows it.
_HUES = (
    *(("red", 16), ("orange", 42), ("yellow", 68), ("green", 165), ("turquoise", 192)),
    *(("blue", 257), ("purple", 310), ("pink", 345), ("red", 360)),
)


def open_names(fractions: Fractions) -> Examples:
    """A name an example, with the `label` that `family` gives its colour; split at random."""
    return Examples(dict.fromkeys(SPLITS, Made("color_names", ("text", "label"), _names)), fractions)


def _names() -> Iterator[Example]:
    from matplotlib.colors import XKCD_COLORS, to_rgb  # slow to import, and only needed here

    for name, color in XKCD_COLORS.items():
        yield name.removeprefix("xkcd:"), family(*to_rgb(color))


def family(red: float, green: float, blue: float) -> str:
    """What one calls a colour in a word, by its hue, saturation and value; each from 0 to 1."""
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < 0.2:
        return "black"
    if saturation < 0.2:
        return "white" if value > 0.9 else "grey"
    name = next(name for name, end in _HUES if 360 * hue <= end)
    if name in ("red", "orange") and value < 0.75 and 360 * hue > 8 and saturation > 0.3:
        return "brown"
    return "pink" if name == "red" and saturation < 0.6 and value > 0.75 else name
