"""`ptb:DIR` and the presets that are measured on it: the literature's recipe and way of counting, again."""

from __future__ import annotations

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from opened import complaint, records
from oracle_ngrams import BEGINNING, KneserNey

from training import evaluate
from training.config import make_config
from training.presets import PRESETS
from training.train import train
from zoo.model_directory import load_model

FILES = {"train": "ptb.train.txt", "validation": "ptb.valid.txt", "test": "ptb.test.txt"}
WORDS = ["the", "<unk>", "N", "'s", "of", "new", "mr.", "market", "\u00e9", "million", "&", "u.s."]


def made_up(sentences: int, seed: int) -> list[list[str]]:
    draw = np.random.default_rng(seed)
    return [draw.choice(WORDS, size=draw.integers(1, 9)).tolist() for _ in range(sentences)]


SPLITS = {"train": made_up(420, 1), "validation": made_up(40, 2), "test": made_up(30, 3)}


def written(folder, line=" {} \n"):
    """A folder laid out as that of the Penn Treebank."""
    for split, sentences in SPLITS.items():
        text = "".join(line.format(" ".join(words)) for words in sentences)
        (folder / FILES[split]).write_text(text, encoding="utf-8")
    return f"ptb:{folder}"


def literature(split: str) -> list[str]:
    """`f.read().replace("\\n", "<eos>").split()`, as the reader of Zaremba et al.'s results has it."""
    return [word for words in SPLITS[split] for word in [*words, "<eos>"]]


@pytest.mark.parametrize("line", [" {} \n", "{}\n", "{} <eos>\n", "{}\r\n", "  {}\t\n"], ids=repr)
def test_it_is_read_alike_however_it_is_spaced(line, tmp_path):
    dataset = written(tmp_path, line)
    for split, sentences in SPLITS.items():
        text = "".join(text for (text,) in records(dataset, split))
        assert text == "".join(f" {' '.join(words)} \n" for words in sentences)


def test_the_last_line_ends_too(tmp_path):
    dataset = written(tmp_path)
    (tmp_path / "ptb.test.txt").write_text("a b\n\nc")
    assert records(dataset, "test") == [(" a b \n \n c \n",)]


def test_what_is_wrong(tmp_path):
    assert "no such folder; it has ptb.train.txt, ptb.valid.txt" in complaint(f"ptb:{tmp_path}/none")
    dataset = written(tmp_path)
    (tmp_path / "ptb.test.txt").unlink()
    assert "ptb.test.txt: no such file" in complaint(dataset, "test")
    (tmp_path / "ptb.test.txt").write_text("")
    assert "ptb.test.txt is empty" in complaint(dataset, "test")
    (tmp_path / "ptb.test.txt").write_bytes(b"a\n\xff\n")
    assert "ptb.test.txt, line 2: not UTF-8" in complaint(dataset, "test")
    assert "unknown split 'dev'" in complaint(dataset, "dev")
    assert "takes a folder, as in --dataset=ptb:DIR" in complaint("ptb", train_path="x")


# The small model of Zaremba et al.


def test_zaremba_small_is_the_papers_recipe():
    """arXiv:1409.2329, section 4.1, and its authors' program."""
    expected = {
        **{"cell": "lstm", "layers": 2, "units": 200, "embedding_size": 0, "cell_options": "forget_bias=0"},
        **{"batch_size": 20, "sequence_length": 20, "state_reset": 0.0, "epochs": 13, "max_steps": 0},
        **{"optimizer": "sgd", "learning_rate": 1.0, "schedule": "decay", "decay_factor": 0.5},
        **{"decay_after": 4, "warmup_steps": 0, "global_clipnorm": 5.0, "clipnorm": 0.0},
        **{"initializer_scale": 0.1, "loss_reduction": "sequence_sum", "output_layer": "full"},
        **{"dropout": 0.0, "input_dropout": -1.0, "output_dropout": -1.0, "embedding_dropout": 0.0},
        **{"recurrent_dropout": 0.0, "zoneout": 0.0, "weight_drop": 0.0, "tie_embeddings": False},
        **{"activation_regularization": 0.0, "temporal_activation_regularization": 0.0},
        **{"tokenizer": "whitespace", "vocabulary_size": 0, "skip": "none", "average_weights_after": 0},
        **{"evaluation_batch_size": 1, "text_mode": "stream", "random_sequence_length": False},
    }
    config = vars(make_config("zaremba_small", {}))
    assert {name: config[name] for name in expected} == expected


class Reference:
    """The published training and evaluation once more, on its own: lanes, steps, clipping, schedule."""

    def __init__(self, weights: list[np.ndarray], ids: dict[str, int]):
        self.weights = [tf.Variable(weight) for weight in weights]
        self.ids = ids

    def read(self, split: str, lanes: int) -> np.ndarray:
        """[lanes, words], each after the <eos> that precedes the text, or the word before it."""
        words = [self.ids["<eos>"], *(self.ids[word] for word in literature(split))]
        length = (len(words) - 1) // lanes
        return np.stack([words[lane * length : (lane + 1) * length + 1] for lane in range(lanes)])

    def nats(self, inputs, targets, states):
        """-log P of each target, [batch, time], and the states after them."""
        embedding, *layers, output, bias = self.weights
        losses, states = [], list(states)
        for now in range(inputs.shape[1]):
            x = tf.gather(embedding, inputs[:, now])
            for layer in range(2):
                kernel, recurrent, gate_bias = layers[3 * layer : 3 * layer + 3]
                hidden, cell = states[layer]
                i, f, g, o = tf.split(x @ kernel + hidden @ recurrent + gate_bias, 4, axis=1)
                cell = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(g)
                x = tf.sigmoid(o) * tf.tanh(cell)
                states[layer] = x, cell
            log_prob = tf.nn.log_softmax(x @ tf.transpose(output) + bias)
            losses.append(-tf.gather(log_prob, targets[:, now], batch_dims=1))
        return tf.stack(losses, axis=1), states

    def zeros(self, lanes: int):
        units = self.weights[2].shape[0]
        return [(tf.zeros([lanes, units]), tf.zeros([lanes, units])) for _ in range(2)]

    def train(self, epochs: int) -> int:
        text, steps = self.read("train", 20), 0
        step = tf.function(self.step)
        for epoch in range(1, epochs + 1):
            rate, states = 1.0 * 0.5 ** max(epoch - 4, 0), self.zeros(20)
            for start in range(0, text.shape[1] - 20, 20):
                window = tf.constant(text[:, start : start + 21])
                states = step(window[:, :-1], window[:, 1:], states, tf.constant(rate))
                steps += 1
        return steps

    def step(self, inputs, targets, states, rate):
        with tf.GradientTape() as tape:
            nats, states = self.nats(inputs, targets, states)
            loss = tf.reduce_mean(tf.reduce_sum(nats, axis=1))
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, self.weights)]
        gradients, _ = tf.clip_by_global_norm(gradients, 5.0)
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.assign_sub(rate * gradient)
        return states

    def perplexity(self, split: str) -> float:
        """Of the text in one lane, from the zero state."""
        text, states, losses = tf.constant(self.read(split, 1)), self.zeros(1), []
        for start in range(0, text.shape[1] - 1, 10):
            window = text[:, start : start + 11]
            nats, states = self.nats(window[:, :-1], window[:, 1:], states)
            losses.append(nats)
        return float(tf.exp(tf.reduce_mean(tf.concat(losses, axis=1))))


class FirstWeights(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.weights = {weight.path: weight.numpy() for weight in self.model.weights}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> SimpleNamespace:
    """zaremba_small, but for eight units and six epochs; without a best epoch, the last one counts."""
    folder = tmp_path_factory.mktemp("ptb")
    settings = {"dataset": written(folder), "output_dir": str(folder / "model"), "units": 8, "epochs": 6}
    first = FirstWeights()
    result = train(make_config("zaremba_small", settings), [first])
    return SimpleNamespace(result=result, first=first.weights, model_dir=str(folder / "model"))


def test_the_vocabulary_is_the_words_of_training(small):
    words = {piece.decode().strip() or "<eos>" for piece in load_model(small.model_dir).tokenizer.pieces}
    assert words == set(literature("train"))
    assert load_model(small.model_dir).tokenizer.vocabulary_size == len(words) == len(WORDS) + 1


def test_training_and_counting_are_the_literatures(small, run_program):
    pieces = load_model(small.model_dir).tokenizer.pieces
    ids = {piece.decode().strip() or "<eos>": number for number, piece in enumerate(pieces)}
    names = ["embedding/embeddings"]
    names += [f"lstm_{n}/{kind}" for n in (0, 1) for kind in ("input_kernel", "recurrent_kernel", "bias")]
    names += ["head/output_embedding", "head/bias"]
    first = [next(value for path, value in small.first.items() if path.endswith(name)) for name in names]
    assert len(first) == len(small.first)
    for weight in first[:-1]:
        assert 0.05 < np.abs(weight).max() <= 0.1
    reference = Reference(first, ids)
    assert reference.train(epochs=6) == small.result["steps"]
    assert small.result["best"]["step"] == small.result["steps"]
    for split in ("validation", "test"):
        code, out, _ = run_program(evaluate, f"--model_dir={small.model_dir}", f"--split={split}")
        metrics = json.loads(out)
        assert (code, metrics["tokens"]) == (0, len(literature(split)))
        assert metrics["perplexity"] == pytest.approx(reference.perplexity(split), rel=1e-4)


# Kneser-Ney


def test_kneser_ney_counts_as_the_definition_does(run_program, tmp_path):
    settings = {"dataset": written(tmp_path, "{}\n"), "output_dir": str(tmp_path / "model"), "order": 3}
    train(make_config("kneser_ney", settings))
    pieces = load_model(settings["output_dir"]).tokenizer.pieces
    ids = {piece.decode().strip(): number for number, piece in enumerate(pieces)}
    assert len(ids) == len(pieces) == len(WORDS) + 1

    def numbered(split):
        return [[ids[word] for word in words] for words in SPLITS[split]]

    oracle, end = KneserNey(numbered("train"), 3, range(len(pieces))), ids[""]
    nats = []
    for words in numbered("test"):
        sentence = [BEGINNING, *words, end]
        nats += [
            -np.log(oracle.probability(sentence[place], tuple(sentence[max(place - 2, 0) : place])))
            for place in range(1, len(sentence))
        ]
    code, out, _ = run_program(evaluate, f"--model_dir={settings['output_dir']}", "--split=test")
    metrics = json.loads(out)
    assert (code, metrics["tokens"]) == (0, len(nats))
    assert metrics["perplexity"] == pytest.approx(np.exp(np.mean(nats)), rel=1e-5)


def test_lines_without_spaces_around_them_are_no_other_words(tmp_path):
    """`text:` with --leading_space, as the presets of word models have it."""
    for split, sentences in SPLITS.items():
        (tmp_path / f"{split}.txt").write_text("".join(" ".join(words) + "\n" for words in sentences))
    paths = {f"{split}_path": str(tmp_path / f"{split}.txt") for split in SPLITS}
    text = "".join(text for (text,) in records("text", **paths, leading_space=True))
    assert text == "".join(f" {' '.join(words)}\n" for words in SPLITS["train"])
    lines = records("text", **paths, leading_space=True, text_mode="lines")
    assert lines == [(f" {' '.join(words)}",) for words in SPLITS["train"]]
    assert all(PRESETS[name]["leading_space"] for name in ("kneser_ney", "zaremba_small"))
