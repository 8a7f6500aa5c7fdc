"""The reader against its equations in NumPy, one question at a time, and what it answers when served."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from oracles import log_softmax, pooled, softmax, stacked, weights_of

from zoo.models.base import padded
from zoo.models.reader import LONGEST_ANSWER, Reader, best_span
from zoo.text import Characters
from zoo.text_metrics import answer_metrics
from zoo.vocabulary import Labels, Vocabulary

WORDS = Vocabulary([b"the", b"Mary", b"went", b"to", b"where", b"is", b"garden"])
CHARACTERS = Characters.learn(tf.data.Dataset.from_tensors("abcdeé \n"))
ANSWERS = Labels({"no": 1, "yes": 3, "perhaps": 1})
EXAMPLES = [
    ("Mary went to the garden", "where is Mary", "garden"),
    ("the", "is", "the"),
    ("John ran to the old garden house near the river and slept", "where did John sleep", "old garden house"),
]
CASES = {
    "span": {"cell": "gru", "bidirectional": True},
    "closed": {"cell": "lstm", "embedding_size": 3},
    "closed_both": {"cell": "gru", "bidirectional": True, "layers": 2},
}


@pytest.fixture(scope="module", params=CASES)
def model(request, randomize):
    options = {"units": 4, "precision": "float64", **CASES[request.param]}
    answers = None if request.param == "span" else ANSWERS
    return randomize(Reader(WORDS, CHARACTERS, answers, "whitespace", **options), scale=0.6)


def records_of(model, examples=EXAMPLES):
    contexts, questions, answers = (list(column) for column in zip(*examples, strict=True))
    starts = [str(len(c[: c.index(a)].encode())) for c, a in zip(contexts, answers, strict=True)]
    if model.answers:
        answers, starts = ["yes", "no", "perhaps"][: len(examples)], ["-1"] * len(examples)
    fields = {"context": contexts, "question": questions, "answer": answers, "start": starts}
    return {name: tf.constant(values) for name, values in fields.items()}


def batch_of(model, records):
    features = model.features(records)
    ragged = {name: part for name, part in features.items() if isinstance(part, tf.RaggedTensor)}
    of_question = {name: ragged.pop(name).to_tensor() for name in list(ragged) if "question" in name}
    rest = {name: part for name, part in features.items() if not isinstance(part, tf.RaggedTensor)}
    return {**padded(ragged), **of_question, **rest}


def logits_in_numpy(model, context, question):
    embeddings = model.words.embedding.embeddings.numpy()
    context, question = context.split(), question.split()
    words, asked = (
        embeddings[[WORDS.words.index(w.encode()) + 1 if w.encode() in WORDS.words else 0 for w in text]]
        for text in (context, question)
    )
    encoded = stacked(model.question_stack, asked)
    summary = pooled("attention", weights_of(model.question_pooling), encoded, False)
    kernel = weights_of(model.alignment)["memory_kernel"]
    aligned = np.array([softmax(asked @ kernel @ word) @ asked for word in words])
    lower = [word.lower() for word in question]
    is_asked = np.array([[float(word.lower() in lower)] for word in context])
    read = np.concatenate([words, aligned, is_asked, np.tile(summary, (len(words), 1))], axis=-1)
    outputs = stacked(model.context_stack, read)
    if model.answers:
        looked = softmax(outputs @ weights_of(model.summary)["memory_kernel"] @ summary) @ outputs
        final = pooled("final", {}, outputs, model.context_pooling.bidirectional)
        return np.concatenate([looked, final]) @ model.head.kernel.numpy() + model.head.bias.numpy()
    return [log_softmax(outputs @ weights_of(end)["memory_kernel"] @ summary) for end in model.ends]


def test_loss_is_that_of_each_question_alone(model):
    records = records_of(model)
    batch = batch_of(model, records)
    loss, count = model.loss(batch, model(batch))
    expected = 0.0
    for row, (context, question, answer) in enumerate(EXAMPLES):
        logits = logits_in_numpy(model, context, question)
        if model.answers:
            expected -= log_softmax(logits)[ANSWERS.names.index(records["answer"][row].numpy().decode())]
        else:
            words = answer.split()
            places = [i for i in range(len(context.split())) if context.split()[i : i + len(words)] == words]
            expected -= logits[0][places[0]] + logits[1][places[0] + len(words) - 1]
    assert count == len(EXAMPLES)
    np.testing.assert_allclose(loss, expected, rtol=1e-9)


def test_a_question_alone_is_answered_the_same(model):
    examples = [*EXAMPLES, ("", "who", ""), ("a b", "", "a"), ("word " * 60, "שלום café", "word")]
    contexts, questions, _ = (list(column) for column in zip(*examples, strict=True))
    together = model.answered(tf.constant(contexts), tf.constant(questions))
    for row in range(len(examples)):
        alone = model.answered(tf.constant(contexts[row : row + 1]), tf.constant(questions[row : row + 1]))
        for name in ("answer", "start", "end"):
            assert alone[name][0] == together[name][row]
        assert alone["score"][0].numpy() == pytest.approx(together["score"][row].numpy(), rel=1e-5)


def test_answers_are_what_is_likeliest(model):
    contexts, questions, _ = (list(column) for column in zip(*EXAMPLES, strict=True))
    said = {
        name: value.numpy()
        for name, value in model.answered(tf.constant(contexts), tf.constant(questions)).items()
    }
    for row, (context, question, _) in enumerate(EXAMPLES):
        logits = logits_in_numpy(model, context, question)
        if model.answers:
            expected = softmax(logits)
            assert said["answer"][row].decode() == ANSWERS.names[expected.argmax()]
            assert said["score"][row] == pytest.approx(expected.max(), rel=1e-5)
            assert (said["start"][row], said["end"][row]) == (-1, -1)
        else:
            words = context.split()
            spans = itertools.combinations_with_replacement(range(len(words)), 2)
            first, last = max(spans, key=lambda span: logits[0][span[0]] + logits[1][span[1]])
            assert said["answer"][row].decode() == " ".join(words[first : last + 1])
            assert context.encode()[said["start"][row] : said["end"][row]] == said["answer"][row]
            assert said["score"][row] == pytest.approx(np.exp(logits[0][first] + logits[1][last]), rel=1e-5)


def test_best_span_is_the_best_of_those_short_enough():
    random = np.random.default_rng(1)
    for time in (1, 5, 50):
        first, last = (np.log(random.dirichlet(np.ones(time), 4)) for _ in range(2))
        starts, ends, log_prob = (each.numpy() for each in best_span(tf.constant(first), tf.constant(last)))
        for row in range(4):
            spans = [(a, b) for a in range(time) for b in range(a, min(time, a + LONGEST_ANSWER))]
            best = max(spans, key=lambda span: first[row, span[0]] + last[row, span[1]])
            assert (starts[row], ends[row]) == best
            assert log_prob[row] == pytest.approx(first[row, best[0]] + last[row, best[1]])


def test_a_model_from_its_assets_is_the_same(model, randomize):
    records = tf.data.Dataset.from_tensor_slices(records_of(model))
    options = {"tokenizer": "words", "units": 4, "vocabulary_size": 0, "character_units": 2}
    ours = randomize(Reader.learn(records, options))
    theirs = randomize(Reader.restore(options, ours.assets()))
    assert bool(ours.answers) == bool(theirs.answers) == bool(model.answers)
    asked = tf.constant(["Mary went to the old garden"]), tf.constant(["where is Mary?"])
    for name, value in ours.answered(*asked).items():
        np.testing.assert_array_equal(value, theirs.answered(*asked)[name])


def test_metrics_and_judgement(model):
    records = records_of(model)
    batch = batch_of(model, records)
    model.accuracy.reset_state()
    model.update_metrics(batch, model(batch))
    said = model.answered(records["context"], records["question"])["answer"].numpy()
    right = np.mean([a == b for a, b in zip(said, records["answer"].numpy(), strict=True)])
    result = {name: float(value) for name, value in model.accuracy.result().items()}
    assert result["accuracy"] == pytest.approx(right)
    assert model.judge([records])["exact_match"] == pytest.approx(right)
    assert model.objective(result) == 1 - result["accuracy"]


def test_baseline_is_the_most_frequent_answer(model):
    batches = [
        {name: part.numpy() for name, part in batch_of(model, records_of(model, EXAMPLES[:n])).items()}
        for n in (1, 1, 3)
    ]
    assert model.baseline(batches[:2], batches[2:])["accuracy"] == pytest.approx(1 / 3)


def test_answers_are_compared_as_squad_does():
    """By hand: articles, punctuation and case do not count, and of several answers the nearest does."""
    said = ["The  Eiffel Tower!", "in Paris", "Rome", "a"]
    right = [["eiffel tower"], ["Paris", "Paris, France"], ["Milan"], ["the"]]
    metrics = answer_metrics(said, right)
    assert metrics["exact_match"] == pytest.approx(2 / 4)
    assert metrics["f1"] == pytest.approx((1 + 2 / 3 + 0 + 1) / 4)
