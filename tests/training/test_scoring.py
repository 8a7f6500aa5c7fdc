"""Per-token scores: the model's own, and adapted ones against loops over tokens and segments in NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from language_models import BOUNDARY, TOKENIZER, InNumpy, make
from oracles import log_softmax

from training.dynamic_evaluation import EPSILON, DynamicEvaluation
from training.pipeline import TokenFile, contiguous_batches
from training.scoring import Adaptation, TokenScorer

COUNT = 40
TOKENS = np.random.default_rng(5).integers(2, TOKENIZER.vocabulary_size, size=COUNT).astype(np.int32)
CACHE = {"cache_size": 7, "cache_weight": 0.4, "cache_flatness": 0.3}
DYNAMIC = {"dynamic_learning_rate": 0.3, "dynamic_decay": 0.1, "dynamic_segment": 6}


@pytest.fixture
def batches(tmp_path):
    def of(tokens=TOKENS, window=6, lanes=1):
        path = tmp_path / "split.tokens"
        np.array([BOUNDARY, *tokens], np.int32).tofile(path)
        return contiguous_batches(TokenFile(path, len(tokens), ""), lanes, window, drop_remainder=False)

    return of


@pytest.fixture
def model(randomize):
    return make(randomize, layers=1)


def weights_of(model):
    return [variable.numpy() for variable in model.weights]


def test_plain_scores_are_the_equations(model, batches):
    scores = TokenScorer(model)(batches())
    log_prob = log_softmax(InNumpy(model).logits([BOUNDARY, *TOKENS[:-1]]))
    np.testing.assert_allclose(scores.log_prob, log_prob[np.arange(COUNT), TOKENS], rtol=1e-5)
    np.testing.assert_array_equal(scores.tokens, TOKENS)
    metrics = scores.metrics(TOKENIZER.characters)
    assert metrics["tokens"] == COUNT
    assert metrics["perplexity"] == pytest.approx(np.exp(-scores.log_prob.mean()))


@pytest.mark.parametrize("lanes", [1, 3])
def test_come_in_the_order_of_the_text_whatever_the_windows_are(model, batches, lanes):
    short, long = [TokenScorer(model)(batches(window=window, lanes=lanes)) for window in (4, 50)]
    np.testing.assert_array_equal(short.tokens, TOKENS)
    np.testing.assert_array_equal(long.tokens, TOKENS)
    np.testing.assert_allclose(short.log_prob, long.log_prob, rtol=1e-5)


def test_of_the_cache_are_a_loop_over_tokens(model, batches):
    ids = [BOUNDARY, *TOKENS[:-1]]
    outputs = model({"inputs": tf.constant([ids])})
    hidden = outputs["hidden"][0].numpy().astype(float)
    log_prob = log_softmax(model.head(outputs["hidden"])[0].numpy())
    expected = []
    for now, token in enumerate(TOKENS):
        p = np.exp(log_prob[now, token])
        if now:
            past = np.arange(max(0, now - 7), now)
            likeness = np.exp(0.3 * hidden[past] @ hidden[now])
            p = 0.6 * p + 0.4 * likeness[TOKENS[past] == token].sum() / likeness.sum()
        expected.append(np.log(p))
    got = TokenScorer(model, Adaptation(**CACHE))(batches())
    np.testing.assert_allclose(got.log_prob, expected, rtol=1e-5)


def segments_in_numpy(model, mean_squares=None):
    """Krause et al. 2018, equations 4 to 7, over segments of 6, of gradients of the mean loss."""
    learning_rate, decay = DYNAMIC["dynamic_learning_rate"], DYNAMIC["dynamic_decay"]
    start = [weight.astype(float) for weight in weights_of(model)]
    rates, decays = [[value] * len(start) for value in (learning_rate, decay)]
    if mean_squares:
        roots = [np.sqrt(squares) for squares in mean_squares]
        mean = np.mean([root.mean() for root in roots])
        rates = [learning_rate / (root + EPSILON) for root in roots]
        decays = [np.minimum(decay * root / mean, 1) for root in roots]
    states, log_probs = model.initial_states(1), []
    for place in range(0, COUNT, 6):
        inputs = np.array([BOUNDARY, *TOKENS], np.int32)[None, place : place + 6]
        targets = TOKENS[None, place : place + 6]
        inputs = inputs[:, : targets.shape[1]]
        with tf.GradientTape() as tape:
            outputs = model({"inputs": tf.constant(inputs)}, states=states)
            every = tf.nn.log_softmax(model.head(outputs["hidden"]))[0]
            chosen = tf.gather(every, targets[0], batch_dims=1)
            loss = -tf.reduce_mean(chosen)
        values = [weight.value for weight in model.weights]
        gradients = [tf.convert_to_tensor(gradient).numpy() for gradient in tape.gradient(loss, values)]
        parts = zip(model.weights, gradients, rates, decays, start, strict=True)
        for weight, gradient, rate, towards, first in parts:
            now = weight.numpy().astype(float)
            weight.assign(now - rate * gradient + towards * (first - now))
        states = outputs["states"]
        log_probs += chosen.numpy().tolist()
    for weight, first in zip(model.weights, start, strict=True):
        weight.assign(first)
    return log_probs


def test_dynamic_evaluation_is_a_loop_over_segments(model, batches):
    before = weights_of(model)
    expected = segments_in_numpy(model)
    scorer = TokenScorer(model, Adaptation(**DYNAMIC))
    for _ in range(2):  # the second time from the same weights
        np.testing.assert_allclose(scorer(batches()).log_prob, expected, rtol=2e-4)
        for weight, now in zip(before, weights_of(model), strict=True):
            np.testing.assert_array_equal(now, weight)
    plain = TokenScorer(model)(batches()).log_prob
    assert np.abs(plain - expected)[:6].max() < 1e-5
    assert np.abs(plain - expected)[6:].max() > 0.1


def test_dynamic_evaluation_by_gradient_statistics(model, batches):
    """The mean squares are those of the first two of the training's segments, whose states are carried."""
    states, squares = model.initial_states(2), None
    training = batches(TOKENS[::-1], lanes=2)
    for batch in list(training.open(0, 0))[:2]:
        with tf.GradientTape() as tape:
            outputs = model(batch, states=states)
            loss = -tf.reduce_mean(model.token_log_prob(batch, outputs))
        gradients = tape.gradient(loss, [weight.value for weight in model.weights])
        of_batch = [np.square(tf.convert_to_tensor(gradient)) for gradient in gradients]
        squares = of_batch if squares is None else [a + b for a, b in zip(squares, of_batch, strict=True)]
        states = outputs["states"]
    settings = {**DYNAMIC, "dynamic_learning_rate": 0.005, "dynamic_statistics": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DYNAMIC, "dynamic_learning_rate", 0.005)
        expected = segments_in_numpy(model, [total / 2 for total in squares])
    scorer = TokenScorer(model, Adaptation(**settings), training)
    got = scorer(batches()).log_prob
    np.testing.assert_allclose(got, expected, rtol=1e-3)
    assert np.abs(got - TokenScorer(model)(batches()).log_prob).max() > 0.05


def test_dynamic_evaluation_that_learns_nothing_is_plain(model, batches):
    scorer = TokenScorer(model, Adaptation(**DYNAMIC))
    variables = [variable.value for variable in model.trainable_variables]
    scorer.dynamic = DynamicEvaluation(variables, learning_rate=0.0, decay=0.5)
    np.testing.assert_array_equal(scorer(batches()).log_prob, TokenScorer(model)(batches()).log_prob)


def test_learns_a_text_that_repeats_itself(model, batches):
    again = np.tile(TOKENS[:8], 5)
    adapted, plain = [
        TokenScorer(model, Adaptation(**settings))(batches(again)).log_prob.mean()
        for settings in ({"dynamic_learning_rate": 0.5, "dynamic_segment": 6}, {})
    ]
    assert adapted > plain + 0.2


@pytest.mark.parametrize("settings", [{}, CACHE, DYNAMIC, {**CACHE, **DYNAMIC}])
def test_no_later_token_is_seen(model, batches, settings):
    scorer = TokenScorer(model, Adaptation(**settings))
    expected = scorer(batches()).log_prob
    for now in (0, 5, 6, 17, 30):
        other = TOKENS.copy()
        other[now:] = np.where(other[now:] == 2, 3, 2)
        got = scorer(batches(other)).log_prob
        np.testing.assert_array_equal(got[:now], expected[:now])
        assert (got[now:] != expected[now:]).any()


class TestDropoutSamples:
    def test_without_dropout_are_plain(self, model, batches):
        got = TokenScorer(model, Adaptation(dropout_samples=3))(batches()).log_prob
        np.testing.assert_allclose(got, TokenScorer(model)(batches()).log_prob, rtol=1e-5)

    def test_are_the_mean_of_probabilities_of_samples_with_states_of_their_own(self, batches):
        """A model whose dropout is known: its state, an offset that is drawn once and carried."""
        offsets = iter([0.3, -0.2, 0.5])

        def fresh():
            return tf.ones([1, 1]) * tf.py_function(lambda: next(offsets), [], tf.float32)

        class Shifted:
            variable_dtype = "float32"
            trainable_variables = ()

            def initial_states(self, batch_size):
                return {"drawn": tf.zeros([batch_size, 1])}

            def __call__(self, batch, states=None, training=False):
                drawn = states["drawn"]
                if training:
                    drawn = tf.cond(tf.reduce_all(drawn == 0), fresh, lambda: drawn)
                return {"states": {"drawn": tf.ensure_shape(drawn, [1, 1])}}

            def token_log_prob(self, batch, outputs):
                values = tf.cast(batch["targets"], tf.float32) / -10.0
                return values + outputs["states"]["drawn"]

        got = TokenScorer(Shifted(), Adaptation(dropout_samples=3))(batches(window=8)).log_prob
        mean = np.log(np.mean(np.exp([0.3, -0.2, 0.5])))
        np.testing.assert_allclose(got, TOKENS / -10.0 + mean, rtol=1e-5)

    def test_differ_with_dropout_and_settle_as_they_grow(self, randomize, batches):
        model = make(randomize, layers=1, dropout=0.4, recurrent_dropout=0.2)
        plain = TokenScorer(model)(batches()).log_prob.mean()
        one, forty = [TokenScorer(model, Adaptation(dropout_samples=count)) for count in (1, 40)]
        few = [one(batches()).log_prob.mean() for _ in range(8)]
        many = [forty(batches()).log_prob.mean() for _ in range(3)]
        assert np.std(many) < np.std(few) / 2
        assert abs(np.mean(many) - plain) > 1e-3
        assert np.mean(many) > np.mean(few)  # the logarithm is concave
