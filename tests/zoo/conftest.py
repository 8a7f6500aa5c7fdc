"""What the tests of cells share."""

from __future__ import annotations

import pytest
from cases import Case
from oracles import CASES


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return Case.named(request.param)
