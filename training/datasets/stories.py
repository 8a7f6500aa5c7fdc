"""Who is where: 5,000 generated stories with a question each, whose answer is the last place that somebody
went to, as in the first task of bAbI.

    Mary went to the garden. John moved to the kitchen. Mary ran to the office.  Where is Mary?  office
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from training.datasets.base import SPLITS
from training.datasets.examples import Example, Examples, Made
from training.datasets.reading import FIELDS
from training.datasets.splitting import Fractions

COUNT = 5000
LONGEST = 8  # sentences

PEOPLE = ("Mary", "John", "Sandra", "Daniel", "Ada", "Alan", "Grace", "Kurt")
PLACES = ("garden", "kitchen", "office", "bathroom", "hallway", "bedroom", "cellar", "attic", "library")
MOVES = ("went to", "moved to", "ran to", "walked to", "travelled to", "went back to")


def open_stories(fractions: Fractions) -> Examples:
    """A story with a question and its answer an example, split at random."""
    return Examples(dict.fromkeys(SPLITS, Made("stories", FIELDS, _stories)), fractions)


def _stories() -> Iterator[Example]:
    draw = random.Random(1)
    for _ in range(COUNT):
        context, last = "", {}
        for _ in range(draw.randint(1, LONGEST)):
            person, place = draw.choice(PEOPLE), draw.choice(PLACES)
            context += f"{' ' if context else ''}{person} {draw.choice(MOVES)} the "
            last[person] = (place, len(context))
            context += f"{place}."
        person = draw.choice(sorted(last))
        place, start = last[person]
        yield context, f"Where is {person}?", place, str(start)
