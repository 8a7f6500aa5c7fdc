"""The translator against its equations in NumPy, one pair at a time, and what it answers when served."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import sacrebleu
import tensorflow as tf
from oracles import log_softmax, softmax, stack_states, weights_of

from zoo.models.base import padded
from zoo.models.translator import Translator
from zoo.text import Characters
from zoo.text_metrics import translation_metrics

SOURCE = Characters.learn(tf.data.Dataset.from_tensors("abcdeé \n"))
TARGET = Characters.learn(tf.data.Dataset.from_tensors("xyz \n"))
PAIRS = [("ab", "xy z"), ("", "z"), ("edcba é", ""), ("abc" * 10, "xyzzy" * 4)]
CASES = {
    "none": {"cell": "gru", "attention": "none", "embedding_size": 3},
    "multiplicative": {"cell": "lstm", "bidirectional": True, "layers": 2, "tie_embeddings": True},
    "additive": {"cell": "gru", "attention": "additive", "bidirectional": True},
}


@pytest.fixture(scope="module", params=CASES)
def model(request, randomize):
    options = {"units": 4, "precision": "float64", **CASES[request.param]}
    return randomize(Translator(SOURCE, TARGET, **options), scale=0.6)


def ids_of(tokenizer, text):
    pieces = tokenizer.pieces
    return [pieces.index(c.encode()) if c.encode() in pieces else 0 for c in text] + [1]


def log_probs_in_numpy(model, text, translation):
    """log P of each token of the translation and its end."""
    embedded = model.source_embedding.embeddings.numpy()[ids_of(SOURCE, text)]
    memory, final = stack_states(model.encoder, embedded)
    bridge = weights_of(model.bridge)
    first = np.tanh(
        np.concatenate([final[name] for name in model.encoder.state_size]) @ bridge["kernel"] + bridge["bias"]
    )
    sizes = model.decoder.state_size
    parts = np.split(first, np.cumsum(list(sizes.values()))[:-1])
    targets = ids_of(TARGET, translation)
    said = model.target_embedding.embeddings.numpy()[[1, *targets[:-1]]]
    hidden, _ = stack_states(model.decoder, said, dict(zip(sizes, parts, strict=True)))
    if model.attention:
        hidden = np.array([attended(model, query, memory) for query in hidden])
    head = weights_of(model.head)
    output = model.target_embedding.embeddings.numpy() if model.head.tied_to else head["output_embedding"]
    logits = hidden @ output.T + head["bias"]
    return [log_softmax(row)[target] for row, target in zip(logits, targets, strict=True)]


def attended(model, query, memory):
    weights = weights_of(model.attention)
    if "query_kernel" in weights:
        hidden = np.tanh(query @ weights["query_kernel"] + memory @ weights["memory_kernel"])
        scores = hidden @ weights["score_kernel"][:, 0]
    else:
        scores = memory @ weights["memory_kernel"] @ query
    combine = weights_of(model.combine)
    return np.tanh(np.concatenate([softmax(scores) @ memory, query]) @ combine["kernel"] + combine["bias"])


def batch_of(model, pairs):
    texts, translations = zip(*pairs, strict=True)
    features = model.features({"text": tf.constant(texts), "translation": tf.constant(translations)})
    batch = padded({"inputs": features.pop("inputs")})
    return {**batch, **{name: ragged.to_tensor() for name, ragged in features.items()}}


def test_loss_is_that_of_each_pair_alone(model):
    batch = batch_of(model, PAIRS)
    loss, count = model.loss(batch, model(batch))
    expected = [log_probs_in_numpy(model, *pair) for pair in PAIRS]
    assert count == sum(map(len, expected))
    np.testing.assert_allclose(loss, -sum(map(sum, expected)), rtol=1e-9)


def test_metrics_are_those_of_the_loss(model):
    batch = batch_of(model, PAIRS)
    model.perplexity.reset_state()
    model.update_metrics(batch, model(batch))
    nats, count = model.loss(batch, model(batch))
    result = {name: float(value) for name, value in model.perplexity.result().items()}
    assert result["nats_per_token"] == pytest.approx(float(nats / count))
    characters = sum(len(translation) + 1 for _, translation in PAIRS)
    assert result["bits_per_character"] == pytest.approx(float(nats) / np.log(2) / characters)
    assert model.objective(result) == result["nats_per_token"]


@pytest.mark.parametrize(("tie_embeddings", "deviation"), [(False, 1), (True, 1 / 8)])
def test_embeddings_start_as_large_as_kernels_expect_inputs(tie_embeddings, deviation):
    model = Translator(SOURCE, TARGET, units=64, tie_embeddings=tie_embeddings)
    assert np.std(model.source_embedding.embeddings) == pytest.approx(1, rel=0.2)
    assert np.std(model.target_embedding.embeddings) == pytest.approx(deviation, rel=0.2)


def test_translations_are_as_likely_as_they_say(model):
    texts = [text for text, _ in PAIRS]
    said = model.translated(tf.constant(texts), [3], [8])
    for text, translation, log_prob in zip(
        texts, said["translation"].numpy(), said["log_prob"].numpy(), strict=True
    ):
        log_probs = log_probs_in_numpy(model, text, translation.decode())
        ended = log_probs if len(log_probs) <= 8 else log_probs[:8]  # the limit came before the end
        assert log_prob == pytest.approx(sum(ended), rel=1e-5)


def test_a_text_alone_is_translated_the_same(model):
    texts, widths, limits = [text for text, _ in PAIRS], [1, 4, 2, 3], [9, 5, 7, 20]
    together = model.translated(tf.constant(texts), widths, limits)
    for row, text in enumerate(texts):
        alone = model.translated(tf.constant([text]), widths[row : row + 1], limits[row : row + 1])
        assert alone["translation"][0] == together["translation"][row]
        assert alone["log_prob"][0].numpy() == pytest.approx(together["log_prob"][row].numpy(), rel=1e-5)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("beam_width", 0), ("beam_width", 33), ("max_new_tokens", 0), ("max_new_tokens", 1025)],
)
def test_settings_out_of_range(model, setting, value):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{setting} must be between 1 and"):
        model.translated(tf.constant(["ab"]), **{setting: [value]})


def test_alignment_is_what_the_decoder_attends_to(model):
    if not model.attention:
        assert "align" not in model.signatures()
        return
    texts, translations = (list(side) for side in zip(*PAIRS, strict=True))
    aligned = model.signatures()["align"](text=tf.constant(texts), translation=tf.constant(translations))
    weights = aligned["weights"].numpy()
    batch = batch_of(model, PAIRS)
    np.testing.assert_allclose(
        weights, np.where(batch["is_target"].numpy()[..., np.newaxis], model(batch)["weights"], 0), rtol=1e-6
    )
    for row, (text, translation) in enumerate(PAIRS):
        rows, columns = len(translation) + 1, len(text) + 1
        np.testing.assert_allclose(weights[row, :rows, :columns].sum(-1), 1, rtol=1e-6)
        assert np.all(weights[row, rows:] == 0)
        assert np.all(weights[row, :, columns:] == 0)
        assert b"".join(aligned["source_tokens"].numpy()[row]).decode() == text + "\n"
        assert b"".join(aligned["target_tokens"].numpy()[row]).decode() == translation + "\n"


@pytest.mark.parametrize("shared", [False, True])
def test_a_model_from_its_assets_is_the_same(shared, randomize):
    records = tf.data.Dataset.from_tensor_slices({"text": ["ab", "ba"], "translation": ["xy", "yx"]})
    options = {"tokenizer": "characters", "vocabulary_size": 0, "units": 4, "shared_vocabulary": shared}
    ours = randomize(Translator.learn(records, options))
    assert set(b"axb") - set(b"".join(ours.source_tokenizer.pieces)) == (set() if shared else {ord("x")})
    theirs = randomize(Translator.restore(options, ours.assets()))
    text = tf.constant(["abab"])
    assert ours.translated(text)["translation"][0] == theirs.translated(text)["translation"][0]


def test_it_learns_to_copy_and_is_judged_by_what_it_says():
    """A hundred steps on copying two letters; BLEU and chrF are sacrebleu's."""
    options = {"units": 24, "embedding_size": 8, "bidirectional": True}
    model = Translator(SOURCE, SOURCE, **options)
    texts = [a + b for a in "abcde" for b in "abcde"]
    batch = batch_of(model, [(text, text) for text in texts])
    optimizer = keras.optimizers.Adam(0.02)

    @tf.function
    def train():
        with tf.GradientTape() as tape:
            nats, count = model.loss(batch, model(batch, training=True))
            mean = nats / count
        optimizer.apply(tape.gradient(mean, watched), model.trainable_variables)

    watched = [variable.value for variable in model.trainable_variables]
    optimizer.build(model.trainable_variables)
    for _ in range(100):
        train()
    records = [{"text": tf.constant(texts), "translation": tf.constant(texts)}]
    judged = model.judge(records)
    assert judged["exact_match"] == 1
    assert judged["chrf"] == pytest.approx(100)


def test_translation_metrics_are_sacrebleus():
    said = ["the cat sat on the mat", "a dog barks loudly today", "same same same same"]
    right = ["the cat sat on a mat", "a dog barked loudly yesterday", "same same same same"]
    metrics = translation_metrics(said, right)
    assert metrics["bleu"] == sacrebleu.corpus_bleu(said, [right]).score
    assert metrics["chrf"] == sacrebleu.corpus_chrf(said, [right]).score
    assert 20 < metrics["bleu"] < 80
    assert metrics["exact_match"] == pytest.approx(1 / 3)
