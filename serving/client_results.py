"""What a model server's answers say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Outputs(dict[str, np.ndarray]):
    """A signature's outputs by name, strings as bytes in arrays of objects."""

    def __init__(self, arrays: Mapping[str, np.ndarray], version: int):
        super().__init__(arrays)
        self.version = version  # of the model, that gave them


class Generation(NamedTuple):
    """The continuation of a prompt."""

    text: str
    num_tokens: int
    log_prob: float  # nats
    version: int


class Alternative(NamedTuple):
    """What might have been in a token's place."""

    text: bytes
    log_prob: float  # nats


class TokenDetails(NamedTuple):
    """A token of a text, and the likeliest in its place. Their bytes need not be whole characters."""

    text: bytes
    log_prob: float  # nats
    alternatives: Sequence[Alternative]


class GenerationDetails(NamedTuple):
    """The continuation of a prompt, token by token."""

    text: str
    num_tokens: int
    log_prob: float  # nats
    tokens: Sequence[TokenDetails]
    version: int


class Continuation(NamedTuple):
    """One of several continuations of a prompt."""

    text: str
    log_prob: float  # nats


class Continuations(NamedTuple):
    """The likeliest continuations of a prompt that were found, the best first."""

    continuations: Sequence[Continuation]
    version: int


class Token(NamedTuple):
    """One step of a generation. The bytes of a token need not be whole characters."""

    text: bytes
    id: int
    log_prob: float  # nats
    done: bool  # the text ends here
    version: int


class Score(NamedTuple):
    """How likely a text is."""

    log_prob: float  # nats
    num_tokens: int
    perplexity: float
    version: int


class ScoreDetails(NamedTuple):
    """How likely a text is, token by token."""

    log_prob: float  # nats
    num_tokens: int
    perplexity: float
    tokens: Sequence[TokenDetails]
    version: int


class Classification(NamedTuple):
    """A text's likeliest label, and the probabilities of all."""

    label: str
    probabilities: Mapping[str, float]
    version: int


class Tags(NamedTuple):
    """A text's tokens, the tag of each, the probability of that, and the token's place, in bytes."""

    tokens: Sequence[str]
    tags: Sequence[str]
    scores: Sequence[float]
    starts: Sequence[int]
    ends: Sequence[int]
    version: int


class Translation(NamedTuple):
    """A text in the other language."""

    translation: str
    log_prob: float  # nats
    version: int


class Answer(NamedTuple):
    """The answer to a question, and how likely it is."""

    answer: str
    start: int  # where in the context it stands, in bytes; -1: nowhere
    end: int
    score: float
    version: int


class Embedding(NamedTuple):
    """A text as a vector."""

    embedding: np.ndarray  # [size]
    version: int


class ClassScore(NamedTuple):
    """One class of an example, as the stock request Classify gives them; the label may be ''."""

    label: str
    score: float


class Inferences(NamedTuple):
    """What several signatures say of the same examples, by the names of the signatures."""

    classifications: Mapping[str, Sequence[Sequence[ClassScore]]]  # the classes of each example
    regressions: Mapping[str, Sequence[float]]  # a number for each example
    version: int


class VersionStatus(NamedTuple):
    """What has become of a version."""

    version: int
    state: str  # START, LOADING, AVAILABLE, UNLOADING or END
    error_code: str
    error_message: str


class TensorInfo(NamedTuple):
    """An input or output of a signature."""

    dtype: str  # as TensorFlow prints it: float, int32, string, ...
    shape: Sequence[int | None] | None  # None: not known
    default: np.ndarray | None = None  # None: it has to be given


class Signature(NamedTuple):
    """What a model can be asked."""

    method_name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


class Metadata(NamedTuple):
    """The signatures of a model by name."""

    signatures: Mapping[str, Signature]
    version: int


class ServedModel(NamedTuple):
    """A model in a server's list, and the state of each of its versions."""

    name: str
    versions: Mapping[int, str]
