"""Sampling against its exact distribution, and the independence of rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from oracles import sampling_distribution, softmax

from zoo import decoding
from zoo.decoding import Sampling

LARGEST = 1 - 2.0**-24  # the largest float32 below 1
LOGITS = np.array([0.3, -1.2, 2.0, 1.9, -3.0, 0.0, 0.7, -0.5], np.float32)


def sampling(**settings) -> Sampling:
    """Settings of one row, or of several where lists are given."""
    return Sampling(
        **{
            name: tf.constant(np.atleast_1d(value), decoding.SETTINGS[name].dtype)
            for name, value in settings.items()
        }
    )


def draws(logits, uniform, **settings) -> np.ndarray:
    """One token for each random number, all from the same logits and settings."""
    uniform = np.atleast_1d(np.asarray(uniform, np.float32))
    logits = np.tile(np.asarray(logits, np.float32), (len(uniform), 1))
    tokens = sampling(**settings).checked(len(uniform)).choose(tf.constant(logits), tf.constant(uniform))
    assert tokens.dtype == tf.int32
    return tokens.numpy()


SETTINGS = [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 1},
    {"top_k": 3},
    {"top_k": 100},
    {"top_p": 0.5},
    {"top_p": 0.9},
    {"top_p": 0.999},
    {"min_p": 0.05},
    {"min_p": 0.3},
    {"min_p": 1.0},
    {"typical_p": 0.2},
    {"typical_p": 0.6},
    {"typical_p": 0.999},
    {"temperature": 2.0, "typical_p": 0.4},
    {"temperature": 3.0, "top_p": 0.95, "min_p": 0.2, "typical_p": 0.9},
    {"temperature": 1.7, "top_k": 4, "top_p": 0.8},
]


def named(settings):
    return ", ".join(f"{name}={value}" for name, value in settings.items()) or "plain"


@pytest.mark.parametrize("settings", SETTINGS, ids=named)
def test_each_token_has_its_share_of_the_random_numbers(settings):
    """Evenly spread numbers in [0, 1) give every token its probability, to one number's width."""
    count = 20_000
    tokens = draws(LOGITS, (np.arange(count) + 0.5) / count, **settings)
    shares = np.bincount(tokens, minlength=len(LOGITS)) / count
    expected = sampling_distribution(LOGITS, **settings)
    np.testing.assert_allclose(shares, expected, atol=2 / count)
    assert set(np.flatnonzero(shares)) == set(np.flatnonzero(expected))


def uniforms(seeds, count=1) -> np.ndarray:
    seeds = tf.constant(seeds, tf.int32)
    return tf.function(decoding.uniforms)(seeds, len(seeds), count).numpy()


@pytest.fixture(scope="module")
def random_numbers():
    """A number each from 4,000 seeds: small ones, such as callers choose."""
    return uniforms(list(itertools.product(range(40), range(100))))[:, 0]


# The 99.9 % points of chi-square by degrees of freedom.
CHI_SQUARE = (0.0, 10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32)


@pytest.mark.parametrize("settings", SETTINGS, ids=named)
def test_seeds_next_to_each_other_draw_independently(random_numbers, settings):
    tokens = draws(LOGITS, random_numbers, **settings)
    expected = sampling_distribution(LOGITS, **settings) * len(tokens)
    counts = np.bincount(tokens, minlength=len(LOGITS))
    possible = expected > 0
    assert not counts[~possible].any()
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square <= CHI_SQUARE[possible.sum() - 1]


def test_random_numbers_are_uniform(random_numbers):
    assert random_numbers.min() >= 0
    assert random_numbers.max() < 1
    counts, _ = np.histogram(random_numbers, bins=8, range=(0, 1))
    assert ((counts - 500) ** 2 / 500).sum() < CHI_SQUARE[7]


def test_greedy_takes_the_most_probable():
    random = np.random.default_rng(0)
    logits = random.normal(size=(50, 9)).astype(np.float32)
    tokens = (
        sampling(temperature=0.0)
        .checked(50)
        .choose(tf.constant(logits), tf.constant(random.uniform(size=50), tf.float32))
    )
    np.testing.assert_array_equal(tokens, logits.argmax(axis=1))


@pytest.mark.parametrize("uniform", [0.0, 0.5, LARGEST])
@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1.2e-38, 1e-40])
def test_hardly_any_temperature_is_greedy(temperature, uniform):
    assert draws(LOGITS, uniform, temperature=temperature) == [2]
    assert draws(100 * LOGITS, uniform, temperature=temperature) == [2]
    assert draws(np.full(3, -5.0), uniform, temperature=temperature)[0] in (0, 1, 2)


def test_the_highest_temperature_is_uniform_and_draws_nothing_impossible():
    logits = np.array([-np.inf, 50, 0, -50, -np.inf], np.float32)
    count = 3000
    tokens = draws(logits, (np.arange(count) + 0.5) / count, temperature=3e38)
    np.testing.assert_array_equal(np.bincount(tokens), [0, 1000, 1000, 1000])


@pytest.mark.parametrize("impossible", [-np.inf, -1000.0, float(np.finfo(np.float32).min)])
@pytest.mark.parametrize("settings", [*SETTINGS, {"temperature": 0.0}], ids=named)
@pytest.mark.parametrize("place", [[0], [7], [0, 1, 7], [3, 4], [0, 1, 2, 3, 4, 5, 6]])
def test_what_has_no_probability_is_never_drawn(impossible, settings, place):
    logits = LOGITS.copy()
    logits[place] = impossible
    tokens = draws(logits, [0.0, 2.0**-24, 0.25, 0.5, 0.999, LARGEST], **settings)
    assert not np.isin(tokens, place).any()
    assert ((tokens >= 0) & (tokens < len(logits))).all()


def kept_by(logits, settings) -> set[int]:
    count = 997
    return set(draws(logits, [0.0, *((np.arange(count) + 0.5) / count), LARGEST], **settings).tolist())


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    """By brute force over all sets, at and around every possible boundary, in halves that are exact."""
    probabilities = np.array([1, 16, 4, 8, 2, 1]) / 32
    logits = np.log(probabilities)
    for reached in [1 / 32, 15 / 32, 16 / 32, 17 / 32, 24 / 32, 25 / 32, 28 / 32, 30 / 32, 31 / 32]:
        for top_p in (reached - 1e-3, reached + 1e-3):
            sets = [
                chosen
                for size in range(1, 7)
                for chosen in itertools.combinations(range(6), size)
                if probabilities[list(chosen)].sum() >= top_p
            ]
            smallest = min(len(chosen) for chosen in sets)
            best = max(
                (chosen for chosen in sets if len(chosen) == smallest),
                key=lambda chosen: probabilities[list(chosen)].sum(),
            )
            kept = kept_by(logits, {"top_p": top_p})
            # Of the two tokens of 1/32 either may be the last.
            assert len(kept) == smallest
            assert probabilities[list(kept)].sum() == probabilities[list(best)].sum()


@pytest.mark.parametrize("top_p", [1.2e-38, 1e-20, 1e-6, 0.3])
def test_top_p_always_keeps_one(top_p):
    assert kept_by(LOGITS, {"top_p": top_p}) == {2}
    assert kept_by(LOGITS, {"top_p": top_p, "top_k": 5, "temperature": 1.0}) == {2}


def test_top_p_counts_what_top_k_left():
    """0.5, 0.25, 0.125, 0.125: of the first two, 2/3 of the mass is in the first."""
    logits = np.log([0.5, 0.25, 0.125, 0.125])
    assert kept_by(logits, {"top_k": 2, "top_p": 0.66}) == {0}
    assert kept_by(logits, {"top_k": 2, "top_p": 0.67}) == {0, 1}


def test_min_p_keeps_what_is_not_much_less_probable_than_the_best():
    """0.5, 0.25, 0.125, 0.125."""
    logits = np.log([0.25, 0.5, 0.125, 0.125])
    assert kept_by(logits, {"min_p": 0.51}) == {1}
    assert kept_by(logits, {"min_p": 0.49}) == {0, 1}
    assert kept_by(logits, {"min_p": 0.24}) == {0, 1, 2, 3}


def test_typical_p_may_leave_out_the_most_probable():
    logits = np.log([0.6, *[0.4 / 8] * 8])  # surprises 0.51 and 3.00 around an entropy of 1.50
    assert kept_by(logits, {"typical_p": 0.5}) == {0}
    logits = np.log([0.4, *[0.6 / 8] * 8])  # 0.92 and 2.59 around 1.92
    assert kept_by(logits, {"typical_p": 0.2}) == {1, 2, 3}
    assert kept_by(logits, {"typical_p": 0.61}) == {*range(9)}


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p", "typical_p"])
def test_filters_of_a_large_vocabulary(name, scale):
    """1,500 tokens, some of them equally probable, of which few, many or nearly all are kept."""
    logits = np.round(scale * np.random.default_rng(3).normal(size=1500), 1)
    logits[::50] = -np.inf
    values = {"top_k": [1, 7, 255, 256, 257, 1499, 1500, 9999]}.get(
        name, [0.01, 0.3004, 0.701, 0.95, 0.999, 1.0]
    )
    probabilities = tf.constant(np.tile(softmax(logits), (len(values), 1)), tf.float32)
    setting = decoding.SETTINGS[name]
    left = decoding.FILTERS[name].apply(probabilities, tf.constant(values, setting.dtype)).numpy()
    for row, value in enumerate(values):
        expected = sampling_distribution(logits, **{name: value})
        np.testing.assert_allclose(left[row] / left[row].sum(), expected, rtol=1e-4, atol=1e-9)


def test_among_equals_the_first_are_kept():
    assert kept_by(np.zeros(6), {"top_k": 2}) == {0, 1}
    assert kept_by(np.zeros(6), {"top_p": 0.5}) == {0, 1, 2}
    assert kept_by(np.zeros(6), {"typical_p": 0.5}) == {0, 1, 2}
    assert kept_by([0, 1, 1, 0, 1, 1], {"top_k": 3}) == {1, 2, 4}


def test_a_row_is_drawn_alike_alone_and_beside_any_others():
    random = np.random.default_rng(0)
    values = itertools.product([0.0, 0.7, 5.0], [0, 3], [0.2, 1.0], [0.0, 0.1], [0.3, 1.0])
    names = ("temperature", "top_k", "top_p", "min_p", "typical_p")
    rows = [dict(zip(names, value, strict=True)) for value in values]
    # Flat and peaked distributions of more tokens than are ranked at first.
    scale = np.where(np.arange(len(rows)) % 3, 4, 0.5)[:, np.newaxis]
    logits = (scale * random.normal(size=(len(rows), 1000))).astype(np.float32)
    uniform = random.uniform(size=len(rows)).astype(np.float32)

    def chosen(part):
        settings = sampling(**{name: [rows[row][name] for row in part] for name in rows[0]})
        return settings.choose(tf.constant(logits[part]), tf.constant(uniform[part])).numpy()

    together = chosen(list(range(len(rows))))
    alone = [chosen([row])[0] for row in range(len(rows))]
    np.testing.assert_array_equal(together, alone)
    shuffled = random.permutation(len(rows))
    np.testing.assert_array_equal(chosen(shuffled), together[shuffled])
    assert len(set(together.tolist())) > 10


def test_one_row_of_settings_is_for_the_whole_batch():
    settings = sampling(temperature=0.5, top_k=2, top_p=0.8).checked(3).settings
    np.testing.assert_allclose(settings["temperature"], [0.5] * 3)
    np.testing.assert_array_equal(settings["top_k"], [2] * 3)
    np.testing.assert_allclose(settings["top_p"], [0.8] * 3)
    np.testing.assert_array_equal(settings["min_p"], [0] * 3)
    settings = sampling(temperature=[0.5, 1, 0]).checked(3).settings
    assert settings["temperature"].numpy().tolist() == [0.5, 1, 0]


def test_a_setting_that_there_is_not():
    with pytest.raises(TypeError, match="there is no top_q; there are temperature, top_k, top_p, min_p"):
        Sampling(top_q=[0.5])


def test_settings_of_another_batch_size_are_refused():
    with pytest.raises(tf.errors.InvalidArgumentError):
        sampling(temperature=[0.5, 1.0]).checked(3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature must be at least 0"),
        ({"temperature": [1.0, float("nan")]}, "temperature must be at least 0"),
        ({"temperature": float("inf")}, "temperature must be at least 0"),
        ({"top_k": [3, -1]}, "top_k must be at least 0"),
        ({"min_p": -0.1}, "min_p must be between 0 and 1"),
        ({"min_p": [0.0, 1.1]}, "min_p must be between 0 and 1"),
        ({"min_p": float("nan")}, "min_p must be between 0 and 1"),
        ({"typical_p": 0.0}, "typical_p must be above 0 and at most 1"),
        ({"typical_p": [1.0, 2.0]}, "typical_p must be above 0 and at most 1"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"top_p": [0.5, 1.01]}, "top_p must be above 0 and at most 1"),
        ({"top_p": float("nan")}, "top_p must be above 0 and at most 1"),
    ],
    ids=str,
)
@pytest.mark.parametrize("in_graph", [False, True])
def test_settings_out_of_range_are_refused(settings, message, in_graph):
    def check():
        return sampling(**settings).checked(2).settings["temperature"]

    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        (tf.function(check) if in_graph else check)()


def test_same_seed_same_numbers_in_any_batch():
    seeds = [[1, 2], [3, 4], [1, 2], [-1, 5], [0, 0]]
    numbers = uniforms(seeds, 6)
    np.testing.assert_array_equal(numbers, uniforms(seeds, 6))
    np.testing.assert_array_equal(numbers[0], numbers[2])
    for row, seed in enumerate(seeds):
        np.testing.assert_array_equal(numbers[row], uniforms([seed], 6)[0])
        np.testing.assert_array_equal(numbers[row], tf.random.stateless_uniform([6], seed))
    assert len({row.tobytes() for row in numbers}) == 4


def test_one_seed_for_a_batch_gives_every_row_the_same():
    numbers = decoding.uniforms(tf.constant([[7, 8]]), tf.constant(3), 4).numpy()
    assert numbers.shape == (3, 4)
    assert len({row.tobytes() for row in numbers}) == 1


def test_the_default_seed_is_fresh():
    draw = tf.function(lambda: decoding.uniforms(tf.constant([[-1, -1]]), tf.constant(3), 4))
    rows = [row.tobytes() for _ in range(3) for row in draw().numpy()]
    assert len(set(rows)) == 9


def test_the_default_seed_is_fresh_whatever_the_programs_global_seed():
    def first_of_a_new_program():
        tf.random.set_seed(1)
        return tf.function(lambda: decoding.uniforms(tf.constant([[-1, -1]]), tf.constant(1), 4))().numpy()

    assert first_of_a_new_program().tobytes() != first_of_a_new_program().tobytes()
