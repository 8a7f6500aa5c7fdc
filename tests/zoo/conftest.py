"""What the tests of cells share, and those of language models."""

from __future__ import annotations

from typing import Any

import pytest
from cases import Case
from language_models import make
from oracles import CASES

from zoo.models.language_model import LanguageModel


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return Case.named(request.param)


@pytest.fixture(scope="module")
def stream(randomize) -> LanguageModel:
    """Of one continuous text; two layers of LSTM."""
    return make(randomize, cell="lstm", layers=2, skip="residual", embedding_size=4)


@pytest.fixture(scope="module")
def separate(randomize) -> LanguageModel:
    """Of separate texts, which end; one layer of GRU."""
    return make(randomize, cell="gru", separate_texts=True)


@pytest.fixture(params=["stream", "separate"])
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def signatures(stream, separate) -> dict[str, Any]:
    """Those of each kind of language model."""
    return {"stream": stream.signatures(), "separate": separate.signatures()}
