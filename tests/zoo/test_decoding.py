"""Repeated sampling of a made-up language, against each row alone in NumPy."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from oracles import sampling_distribution, softmax

from zoo import decoding
from zoo.decoding import NONE, NOWHERE, BadWords, Limits, RepetitionPenalty, Sampling, StopStrings

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
        Limits(tf.constant(limits, tf.int32)),
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
    temperature, top_k, top_p = zip(*rows, strict=True)
    settings = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    allowed = without_zero if forbidden else (lambda logits: logits)
    ids, lengths, log_prob, _ = run(prompt, limits, settings, numbers, end_id, allowed)
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
    ids, lengths, log_prob, _ = run([1, 2], [0, 0], Sampling(), np.zeros((2, 1)))
    assert ids.shape == (2, 0)
    assert lengths.numpy().tolist() == [0, 0]
    assert log_prob.numpy().tolist() == [0, 0]


def test_no_rows(run):
    ids, lengths, log_prob, _ = run([], [], Sampling(), np.zeros((0, 1)))
    assert (ids.shape[0], lengths.shape, log_prob.shape) == (0, (0,), (0,))


def test_it_stops_when_all_rows_have_ended():
    """Not at the limit: 10^9 steps would not end."""
    settings = Sampling(temperature=[0.0])
    ids, lengths, *_ = generate([1, 2], [10**9, 2], settings, np.zeros((2, 50)), end_id=END)
    assert ids.shape[1] == max(lengths.numpy())
    assert ids[0, lengths[0] - 1] == END


# Rules and stop strings: what follows depends on all that was said.
PIECES = np.array([b"?", b"a", b"b", b"ab", b""])


def generate_text(prompts, limit, numbers, penalty=(1.0,), sequences=((),), stop=((),)):
    """Texts as far as they were kept, ids and lengths, of prompts that are lists of tokens."""
    count = len(prompts)
    tokens = tf.ragged.constant(prompts, tf.int32)
    forbidden = decoding.rows(tf.constant(padded(sequences, NONE), tf.int32), count)
    rules = [
        RepetitionPenalty(decoding.rows(tf.constant(penalty), count), VOCABULARY),
        BadWords(forbidden),
    ]
    strings = np.array([[*row, b""] for row in stop], object)  # of equal length
    limits = Limits(
        tf.fill([count], limit),
        StopStrings(decoding.rows(tf.constant(strings, tf.string), count)),
        lambda ids: tf.gather(PIECES, ids),
    )
    last = tf.constant([row[-1] for row in prompts])
    generated = decoding.generate(
        next_logits,
        last,
        tf.zeros_like(last),
        limits,
        Sampling().checked(count),
        tf.constant(numbers, tf.float32),
        without_zero,
        END,
        [(rule, rule.start(tokens)) for rule in rules],
    )
    lengths, ids = generated.lengths.numpy(), generated.ids.numpy()
    ids = [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
    return ids, generated.stop.numpy(), generated.log_prob.numpy()


def padded(sequences, fill):
    """[rows, count, length] of lists of lists of lists, padded in front."""
    count = max(len(row) for row in sequences) or 1
    length = max((len(each) for row in sequences for each in row), default=0) or 1
    blank = [fill] * length
    return [
        [(blank + list(each))[-length:] for each in row] + [blank] * (count - len(row)) for row in sequences
    ]


def ruled_in_numpy(prompt, limit, uniform, penalty=1.0, sequences=(), stop=()):
    said, drawn, text, log_prob = list(prompt), [], b"", 0.0
    for now in range(limit):
        logits = TABLE[now % 6, said[-1]].astype(np.float64)
        changed = logits.copy()
        for token in set(said):
            changed[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
        for sequence in sequences:
            if said[len(said) - len(sequence) + 1 :] == list(sequence[:-1]):
                changed[sequence[-1]] = -np.inf
        changed[0] = -np.inf
        if np.isinf(changed).all():
            break
        token = int(np.searchsorted(np.cumsum(softmax(changed)), uniform[now], side="right"))
        said.append(token)
        drawn.append(token)
        log_prob += np.log(softmax(logits)[token])
        text += PIECES[token]
        if token == END:
            break
        if found := [text.find(each) for each in stop if each in text]:
            return drawn, min(found), log_prob
    return drawn, NOWHERE, log_prob


PROMPTS = [[1], [2, 3], [3], [1, 1, 2], [2]]


def compare(rows, limit=12, seed=7):
    """Rows of options, all at once, against each by itself in NumPy; what was compared."""
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(len(rows))]
    numbers = np.random.default_rng(seed).uniform(size=(len(rows), limit)).astype(np.float32)
    neutral = {"penalty": 1.0, "sequences": (), "stop": ()}
    columns = {name: [row.get(name, value) for row in rows] for name, value in neutral.items()}
    width = max(len(strings) for strings in columns["stop"])
    stop = [[*strings, *[b""] * (width - len(strings))] for strings in columns.pop("stop")]
    got = generate_text(prompts, limit, numbers, **columns, stop=stop)
    for row, (ids, stopped, log_prob) in enumerate(zip(*got, strict=True)):
        expected = ruled_in_numpy(prompts[row], limit, numbers[row], **rows[row])
        assert ids == expected[0]
        assert stopped == expected[1]
        assert log_prob == pytest.approx(expected[2], rel=1e-5, abs=1e-6)
    return got


def test_the_repetition_penalty_of_each_row():
    penalties = [1.0, 2.0, 0.5, 10.0, 1e-3] * 4
    ids, *_ = compare([{"penalty": penalty} for penalty in penalties])
    plain, *_ = compare([{}] * 20)
    assert [row for row in range(20) if ids[row] != plain[row]]
    assert all(ids[row] == plain[row] for row in range(0, 20, 5))


def test_forbidden_sequences_never_occur():
    """Of one token, of several, beginning in the prompt, two with the same end."""
    rows = [{"sequences": s} for s in [[(1,)], [(2, 3)], [(3, 1, 2), (1, 1)], [(2, 1), (1, 1, 1)], []] * 4]
    ids, *_ = compare(rows)
    plain, *_ = compare([{}] * 20)
    for row, options in enumerate(rows):
        said = PROMPTS[row % 5] + ids[row]
        for sequence in options["sequences"]:
            found = [said[place : place + len(sequence)] for place in range(len(said))]
            assert found.count(list(sequence)) == int(PROMPTS[row % 5][-len(sequence) :] == list(sequence))
    assert sum(ids[row] != plain[row] for row in range(20)) > 5


def test_a_text_ends_where_nothing_may_follow():
    ids, stopped, log_prob = compare([{"sequences": [(1,), (2,), (3,), (4,)]}, {}, {"sequences": [(4,)]}])
    assert ids[0] == []
    assert (stopped[0], log_prob[0]) == (NOWHERE, 0)
    assert len(ids[2]) == 12


def test_stop_strings_inside_and_across_tokens():
    strings = [[b"a"], [b"bb", b"ba"], [b"ab"], [b"aba", b"bab"], [b"x"], [b"baab"], []] * 6
    _, stopped, _ = compare([{"stop": row} for row in strings])
    assert len(set(stopped.tolist())) >= 4
    for kind in range(6):
        assert (stopped[kind::7] != NOWHERE).any() == (kind != 4)
    assert (stopped[6::7] == NOWHERE).all()


def test_rules_and_stop_strings_together_and_each_row_alone():
    random = np.random.default_rng(1)
    rows = [
        {
            "penalty": float(random.choice([1.0, 1.7])),
            "sequences": [(1, 2)] if random.integers(2) else [],
            "stop": [b"ba"] if random.integers(2) else [],
        }
        for _ in range(30)
    ]
    compare(rows)


@pytest.mark.parametrize(
    ("text", "piece", "strings", "place"),
    [
        ("", "", ["a"], NOWHERE),
        ("abc", "c", ["abc"], 0),
        ("abc", "c", ["abcd"], NOWHERE),
        ("abc", "c", ["b", "a"], NOWHERE),  # they would have been found before
        ("xabc", "abc", ["b", "c"], 2),
        ("xabc", "abc", ["c", "b"], 2),
        ("xabc", "abc", ["xa"], 0),
        ("aaa", "aa", ["aa"], 0),
        ("né", "é", ["é"], 1),
        (b"n\xc3\xa9", b"\xa9", ["é"], 1),  # a token may be part of a character
        ("abc", "c", ["", "c", ""], 2),
    ],
)
def test_where_a_stop_string_begins(text, piece, strings, place):
    stop = StopStrings(tf.constant([strings, strings]))
    other = tf.constant([text, "zzz"]), tf.constant([piece, "zz"])
    assert stop.find(*other).numpy().tolist() == [place, NOWHERE]
