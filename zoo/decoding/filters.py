"""What is cut off a distribution before the next token is drawn from it.

A filter takes probabilities [batch, vocabulary] and its setting [batch], and gives the probabilities with
those of the tokens that it leaves out at 0. They need not sum to 1: each filter looks at what those before
it have left, as shares of the whole. Of equally probable tokens those with the smaller ids are kept first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from zoo.decoding.settings import Setting

# Tokens are sorted into buckets by the upper bits of a float, 64 to each power of two.
_BITS, _BUCKETS = 17, 2048


def top_k(probabilities: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The `count` most probable tokens; 0: all.

    Source: Fan et al. 2018, arXiv:1805.04833.
    """
    vocabulary = tf.shape(probabilities)[1]
    count = tf.where(count == 0, vocabulary, tf.minimum(count, vocabulary))
    most = tf.reduce_max(tf.where(count < vocabulary, count, 1))
    ranked, ids = tf.math.top_k(probabilities, most)
    last = tf.minimum(count, most) - 1
    kept = _up_to(probabilities, ranked, ids, last) | (count == vocabulary)[:, tf.newaxis]
    return tf.where(kept, probabilities, 0.0)


def top_p(probabilities: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """The smallest set of the most probable tokens that reaches the share.

    Source: Holtzman et al. 2020, arXiv:1904.09751.
    """
    return _first_to_reach(_bits(tf.ones([])) - _bits(probabilities), probabilities, share)


def min_p(probabilities: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """The tokens with at least this share of the largest probability.

    Source: Nguyen et al. 2024, arXiv:2407.01082.
    """
    threshold = share[:, tf.newaxis] * tf.reduce_max(probabilities, axis=-1, keepdims=True)
    return tf.where(probabilities >= threshold, probabilities, 0.0)


def typical_p(probabilities: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """The smallest set, of tokens about as surprising as can be expected, that reaches the share.

    Ranked by |-log p - H|, the least first; H = -sum p log p is the distribution's entropy.

    Source: Meister et al. 2022, arXiv:2202.00666, equation 5.
    """
    normal = probabilities / tf.reduce_sum(probabilities, axis=-1, keepdims=True)
    entropy = -tf.reduce_sum(tf.math.xlogy(normal, normal), axis=-1, keepdims=True)
    distance = tf.abs(-tf.math.log(normal) - entropy)
    return _first_to_reach(_bits(distance) - _bits(tf.constant(2.0**-24)), probabilities, share)


def _bits(values: tf.Tensor) -> tf.Tensor:
    """Integers in the order of the values, which are not negative."""
    return tf.bitcast(values, tf.int32)


def _first_to_reach(rank, probabilities, share):
    """The smallest set of the tokens of the lowest rank, int32, that reaches the share, and all for 1.

    Sorting takes ten times as long as all else in drawing a token. So the tokens are put into buckets by
    their rank, and only those of the bucket in which the share is reached are sorted.
    """
    batch_size, rows = tf.shape(rank)[0], tf.range(tf.shape(rank)[0])[:, tf.newaxis]
    bucket = tf.clip_by_value(tf.bitwise.right_shift(rank, _BITS), 0, _BUCKETS - 1)
    masses = tf.math.unsorted_segment_sum(probabilities, bucket + rows * _BUCKETS, batch_size * _BUCKETS)
    masses = tf.reshape(masses, [batch_size, _BUCKETS])
    target = share * tf.reduce_sum(masses, axis=1)
    last_bucket, missing = _reaching(masses, target)
    inside = bucket == last_bucket[:, tf.newaxis]
    size = tf.math.count_nonzero(inside, axis=1, dtype=tf.int32)
    ranked, ids = tf.math.top_k(tf.where(inside, -rank, tf.int32.min), tf.maximum(tf.reduce_max(size), 1))
    masses = tf.gather(tf.where(inside, probabilities, 0.0), ids, batch_dims=1)
    last, _ = _reaching(masses, missing)
    kept = (bucket < last_bucket[:, tf.newaxis]) | (inside & _up_to(-rank, ranked, ids, last))
    # At 1 nothing is cut, whatever the sum was rounded to.
    return tf.where(kept | (share == 1)[:, tf.newaxis], probabilities, 0.0)


def _reaching(masses, target):
    """The first place [batch] by which the masses [batch, places] add up to the target, and how much of it
    was missing before that place.
    """
    reached = tf.cumsum(masses, axis=1)
    short = (reached < target[:, tf.newaxis]) | (reached == 0)
    place = tf.math.count_nonzero(short, axis=1, dtype=tf.int32)
    place = tf.minimum(place, tf.shape(masses)[1] - 1)
    before = tf.gather(reached - masses, place, batch_dims=1)
    return place, target - before


def _up_to(score, ranked, ids, last):
    """Which tokens rank no lower than place `last` [batch], found without undoing the sorting.

    `tf.math.top_k` gives of equal scores the smaller ids first.
    """
    last_score, last_id = (tf.gather(values, last[:, tf.newaxis], batch_dims=1) for values in (ranked, ids))
    not_after = tf.range(tf.shape(score)[1])[tf.newaxis] <= last_id
    return (score > last_score) | ((score == last_score) & not_after)


def _is_share(value):
    return (value > 0) & (value <= 1)


class Filter(NamedTuple):
    """A filter and its setting, whose default leaves everything as it is."""

    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    setting: Setting


# In the order in which they are applied.
FILTERS: dict[str, Filter] = {
    "top_k": Filter(top_k, Setting(tf.int32, 0, lambda k: k >= 0, "at least 0 (0: all tokens)")),
    "top_p": Filter(top_p, Setting(tf.float32, 1.0, _is_share, "above 0 and at most 1 (1: all tokens)")),
    "min_p": Filter(
        min_p, Setting(tf.float32, 0.0, lambda p: (p >= 0) & (p <= 1), "between 0 and 1 (0: all tokens)")
    ),
    "typical_p": Filter(
        typical_p, Setting(tf.float32, 1.0, _is_share, "above 0 and at most 1 (1: all tokens)")
    ),
}
