"""The tokens of a response, each with what might have been in its place."""

from __future__ import annotations

from typing import Any

from serving.calls import bytes_of, number_of, numbers_of
from serving.client_results import Alternative, TokenDetails


def tokens_of(response: Any) -> list[TokenDetails]:
    """Those of one row of `generate_details` or `score_tokens`."""
    texts, log_probs = bytes_of(response, "tokens"), numbers_of(response, "token_log_probs").tolist()
    others = zip(
        bytes_of(response, "top_tokens"), numbers_of(response, "top_log_probs").tolist(), strict=True
    )
    alternatives = [Alternative(*each) for each in others]
    count = len(alternatives) // max(len(texts), 1)  # of each token
    tokens = [
        TokenDetails(text, log_prob, alternatives[place * count : (place + 1) * count])
        for place, (text, log_prob) in enumerate(zip(texts, log_probs, strict=True))
    ]
    return tokens[: int(number_of(response, "num_tokens"))]  # the rest is padding
