"""Dates as people write them, and as ISO 8601 has them: 20,000 generated pairs, such as
("Tuesday, 3 May 1979", "1979-05-03").

The days are random, of the years 1900 to 2099, and so is the way in which each is written.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, timedelta

from training.datasets.base import SPLITS
from training.datasets.examples import Example, Examples, Made
from training.datasets.splitting import Fractions

COUNT = 20_000
FIRST, DAYS = date(1900, 1, 1), 73_049

MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# {d} and {m} are numbers, {dd} and {mm} of two digits, {month} and {weekday} names, {mon} and {wd} their
# first three letters, {dth} is 1st, 2nd and so on.
FORMS = (
    "{d} {month} {y}",
    "{dth} {month} {y}",
    "{dth} of {month}, {y}",
    "{month} {d}, {y}",
    "{month} {dth}, {y}",
    "{mon} {d}, {y}",
    "{mon}. {d}, {y}",
    "{d} {mon} {y}",
    "{dd}-{mon}-{y}",
    "{weekday}, {month} {d}, {y}",
    "{weekday}, {d} {month} {y}",
    "{weekday} the {dth} of {month} {y}",
    "{wd}, {d} {mon} {y}",
    "the {dth} day of {month} in the year {y}",
    "{mm}/{dd}/{y}",
    "{m}/{d}/{y}",
    "{dd}.{mm}.{y}",
    "{d}.{m}.{y}",
    "{y}/{mm}/{dd}",
)


def open_dates(fractions: Fractions) -> Examples:
    """A `text` and its `translation` an example, split at random."""
    return Examples(dict.fromkeys(SPLITS, Made("dates", ("text", "translation"), _pairs)), fractions)


def _pairs() -> Iterator[Example]:
    draw = random.Random(1)
    for _ in range(COUNT):
        day = FIRST + timedelta(draw.randrange(DAYS))
        text = written(day, draw.choice(FORMS))
        yield draw.choice((text, text, text.lower(), text.upper())), day.isoformat()


def written(day: date, form: str) -> str:
    """A date in one of FORMS."""
    month, weekday = MONTHS[day.month - 1], WEEKDAYS[day.weekday()]
    ending = "th" if 11 <= day.day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10, "th")
    return form.format(
        d=day.day,
        dd=f"{day.day:02}",
        dth=f"{day.day}{ending}",
        m=day.month,
        mm=f"{day.month:02}",
        month=month,
        mon=month[:3],
        weekday=weekday,
        wd=weekday[:3],
        y=day.year,
    )
