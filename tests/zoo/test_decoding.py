"""Sampling against its exact distribution, and the independence of rows."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from oracles import sampling_distribution, softmax

from zoo import decoding
from zoo.decoding import Sampling

LARGEST = 1 - 2.0**-24  # the largest float32 below 1
LOGITS = np.array([0.3, -1.2, 2.0, 1.9, -3.0, 0.0, 0.7, -0.5], np.float32)


def sampling(temperature=1.0, top_k=0, top_p=1.0) -> Sampling:
    """Settings of one row, or of several where lists are given."""
    return Sampling(
        tf.constant(np.atleast_1d(temperature), tf.float32),
        tf.constant(np.atleast_1d(top_k), tf.int32),
        tf.constant(np.atleast_1d(top_p), tf.float32),
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


@pytest.mark.parametrize("settings", [{}, SETTINGS[-1]], ids=named)
def test_seeds_next_to_each_other_draw_independently(random_numbers, settings):
    tokens = draws(LOGITS, random_numbers, **settings)
    expected = sampling_distribution(LOGITS, **settings) * len(tokens)
    counts = np.bincount(tokens, minlength=len(LOGITS))
    possible = expected > 0
    assert not counts[~possible].any()
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    # The 99.9 % points of chi-square with as many degrees of freedom.
    assert chi_square < {1: 10.83, 2: 13.82, 3: 16.27, 7: 24.32}[possible.sum() - 1]


def test_random_numbers_are_uniform(random_numbers):
    assert random_numbers.min() >= 0
    assert random_numbers.max() < 1
    counts, _ = np.histogram(random_numbers, bins=8, range=(0, 1))
    assert ((counts - 500) ** 2 / 500).sum() < 24.32


def test_greedy_takes_the_most_probable():
    random = np.random.default_rng(0)
    logits = random.normal(size=(50, 9)).astype(np.float32)
    tokens = (
        sampling(0.0)
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


def test_among_equals_the_first_are_kept():
    assert kept_by(np.zeros(6), {"top_k": 2}) == {0, 1}
    assert kept_by(np.zeros(6), {"top_p": 0.5}) == {0, 1, 2}


def test_a_row_is_drawn_alike_alone_and_beside_any_others():
    random = np.random.default_rng(0)
    rows = [*itertools.product([0.0, 0.7, 1.0, 5.0], [0, 1, 3], [0.2, 0.9, 1.0])]
    logits = random.normal(scale=2, size=(len(rows), 40)).astype(np.float32)
    uniform = random.uniform(size=len(rows)).astype(np.float32)

    def chosen(part):
        settings = sampling(*zip(*(rows[row] for row in part), strict=True))
        return settings.choose(tf.constant(logits[part]), tf.constant(uniform[part])).numpy()

    together = chosen(list(range(len(rows))))
    alone = [chosen([row])[0] for row in range(len(rows))]
    np.testing.assert_array_equal(together, alone)
    shuffled = random.permutation(len(rows))
    np.testing.assert_array_equal(chosen(shuffled), together[shuffled])
    assert len(set(together.tolist())) > 10


def test_one_row_of_settings_is_for_the_whole_batch():
    settings = sampling(0.5, 2, 0.8).checked(3)
    np.testing.assert_allclose(settings.temperature, [0.5] * 3)
    np.testing.assert_array_equal(settings.top_k, [2] * 3)
    np.testing.assert_allclose(settings.top_p, [0.8] * 3)
    assert sampling([0.5, 1, 0]).checked(3).temperature.numpy().tolist() == [0.5, 1, 0]


def test_settings_of_another_batch_size_are_refused():
    with pytest.raises(tf.errors.InvalidArgumentError):
        sampling([0.5, 1.0]).checked(3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature must be at least 0"),
        ({"temperature": [1.0, float("nan")]}, "temperature must be at least 0"),
        ({"temperature": float("inf")}, "temperature must be at least 0"),
        ({"top_k": [3, -1]}, "top_k must be at least 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"top_p": [0.5, 1.01]}, "top_p must be above 0 and at most 1"),
        ({"top_p": float("nan")}, "top_p must be above 0 and at most 1"),
    ],
    ids=str,
)
@pytest.mark.parametrize("in_graph", [False, True])
def test_settings_out_of_range_are_refused(settings, message, in_graph):
    def check():
        return sampling(**settings).checked(2).temperature

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


# A language of five tokens, in which a token depends on the previous one and on the time.
VOCABULARY, END = 5, 4
TABLE = np.random.default_rng(5).normal(scale=1.5, size=(6, VOCABULARY, VOCABULARY)).astype(np.float32)


def next_logits(token, time):
    return tf.gather_nd(tf.constant(TABLE), tf.stack([time % 6, token], axis=1)), time + 1


def without_zero(logits):
    return tf.where(tf.range(VOCABULARY) == 0, -float("inf"), logits)


def generate(prompt, limits, settings, numbers, end_id=None, allowed=lambda logits: logits):
    prompt = tf.constant(prompt, tf.int32)
    return decoding.generate(
        next_logits,
        prompt,
        tf.zeros_like(prompt),
        tf.constant(limits, tf.int32),
        settings.checked(tf.size(prompt)),
        tf.constant(numbers, tf.float32),
        allowed,
        end_id,
    )


def in_numpy(token, limit, uniform, temperature=1.0, end_id=None, allowed=slice(0, None), **cuts):
    """One row, one token after another."""
    ids, log_prob = [], 0.0
    for now in range(limit):
        logits = TABLE[now % 6, token].astype(np.float64)
        permitted = np.full(VOCABULARY, -np.inf)
        permitted[allowed] = logits[allowed]
        if temperature == 0:
            token = int(permitted.argmax())
        else:
            cumulative = np.cumsum(sampling_distribution(permitted, temperature, **cuts))
            token = int(np.searchsorted(cumulative, uniform[now], side="right"))
        ids.append(token)
        log_prob += np.log(softmax(logits)[token])
        if token == end_id:
            break
    return ids, log_prob


@pytest.fixture(params=["eager", "graph"])
def run(request):
    return generate if request.param == "eager" else functools.partial(in_a_graph, generate)


def in_a_graph(function, *arguments, **options):
    return tf.function(lambda: function(*arguments, **options), autograph=False)()


@pytest.mark.parametrize("end_id", [None, END])
@pytest.mark.parametrize("forbidden", [False, True])
def test_generation_is_repeated_sampling(run, end_id, forbidden):
    """Rows that differ in all settings, against each row alone in NumPy."""
    rows = [*itertools.product([0.0, 0.8], [0, 2], [0.7, 1.0])]
    limits = [9, 0, 3, 1, 9, 9, 2, 9]
    prompt = [1, 2, 3, 0, 1, 2, 3, 0]
    numbers = np.random.default_rng(6).uniform(size=(8, 9)).astype(np.float32)
    settings = sampling(*zip(*rows, strict=True))
    allowed = without_zero if forbidden else (lambda logits: logits)
    ids, lengths, log_prob = run(prompt, limits, settings, numbers, end_id, allowed)
    assert ids.dtype == lengths.dtype == tf.int32
    ended_early = 0
    for row, (temperature, top_k, top_p) in enumerate(rows):
        expected_ids, expected_log_prob = in_numpy(
            prompt[row],
            limits[row],
            numbers[row],
            temperature,
            end_id,
            slice(int(forbidden), None),
            top_k=top_k,
            top_p=top_p,
        )
        assert lengths[row] == len(expected_ids)
        assert ids[row, : len(expected_ids)].numpy().tolist() == expected_ids
        np.testing.assert_allclose(log_prob[row], expected_log_prob, rtol=1e-5, atol=1e-6)
        ended_early += len(expected_ids) < limits[row]
    assert bool(ended_early) == (end_id is not None)


def test_nothing_is_asked_for(run):
    ids, lengths, log_prob = run([1, 2], [0, 0], sampling(), np.zeros((2, 1)))
    assert ids.shape == (2, 0)
    assert lengths.numpy().tolist() == [0, 0]
    assert log_prob.numpy().tolist() == [0, 0]


def test_no_rows(run):
    ids, lengths, log_prob = run([], [], sampling(), np.zeros((0, 1)))
    assert (ids.shape[0], lengths.shape, log_prob.shape) == (0, (0,), (0,))


def test_it_stops_when_all_rows_have_ended():
    """Not at the limit: 10^9 steps would not end."""
    settings = sampling(0.0)
    ids, lengths, _ = generate([1, 2], [10**9, 2], settings, np.zeros((2, 50)), end_id=END)
    assert ids.shape[1] == max(lengths.numpy())
    assert ids[0, lengths[0] - 1] == END
