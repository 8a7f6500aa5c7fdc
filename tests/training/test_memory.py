"""What a vocabulary needs, and what a machine of files made up says that it has."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from language_models import PIECES, TOKENIZER
from output_layers import OPTIONS
from tiny import flags_of, tiny

from training import memory, train
from training.config import Config
from training.layer_options import LAYER_OPTIONS, parse_options
from zoo.heads import HEADS
from zoo.models.language_model import LanguageModel
from zoo.models.word_weights import word_weights


def options_of(**settings):
    values = dataclasses.asdict(Config(**settings))
    return {**values, **{name: parse_options(name, values[name]) for name in LAYER_OPTIONS}}


def model_of(options) -> LanguageModel:
    return LanguageModel._made(TOKENIZER, {**options, "separate_texts": False})


# What is needed


@pytest.mark.parametrize("name", HEADS)
def test_planned_weights_are_those_that_are_made(name):
    options = options_of(
        output_layer=name, output_options=OPTIONS.get(name, ""), units=7, last_units=5, embedding_size=3
    )
    model = model_of(options)
    planned = word_weights(options, len(PIECES))
    assert planned.embedding == model.embedding.count_params()
    assert planned.output == sum(int(np.prod(weight.shape)) for weight in model.head.weights)


def test_tied_weights_are_counted_once():
    options = options_of(tie_embeddings=True, units=5)
    planned = word_weights(options, len(PIECES))
    assert planned[:2] == (5 * len(PIECES), len(PIECES))


def test_a_projection_is_what_the_output_layer_reads():
    options = options_of(
        cell="projected_lstm", cell_options="projection=2", units=8, input_layer="character_cnn"
    )
    assert word_weights(options, 1000)[:2] == (0, 1000 * 2 + 1000)
    assert model_of(options).head.output_embedding.shape == (len(PIECES), 2)


@pytest.mark.parametrize(
    ("settings", "floats"),
    [
        ({"optimizer": "sgd"}, (10 * 1, 11 * 2)),  # the embedding's gradients are of some words
        ({"optimizer": "sgd", "output_layer": "sampled"}, (10, 11 + 1)),  # and counts of words
        ({"optimizer": "adagrad"}, (10 * 2, 11 * 3)),
        ({"optimizer": "momentum"}, (10 * 3, 11 * 3)),
        ({"optimizer": "adam"}, (10 * 4, 11 * 4)),
        ({"optimizer": "adam", "average_weights_after": 5}, (10 * 5, 11 * 5)),
        ({"optimizer": "sgd", "tie_embeddings": True}, (10 * 2, 1 * 2)),
        ({"optimizer": "adam", "precision": "float64"}, (10 * 8, 11 * 8)),
    ],
    ids=str,
)
def test_memory_by_layer(settings, floats):
    """Ten units, so that a word has ten numbers in the embedding, and eleven in the output layer."""
    needed = memory.needed_memory(options_of(units=10, **settings), 1000)
    assert tuple(needed.values()) == tuple(4 * 1000 * each for each in floats)


# What there is


@pytest.fixture
def machine(tmp_path):
    """Makes the files of a machine; says what is available there."""

    def available(**files):
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return memory.available_memory(tmp_path)

    return available


MEMINFO = "MemTotal: 100 kB\nMemFree: 10 kB\nMemAvailable:   50 kB\n"


def test_nothing_is_known(machine):
    assert machine() is None


def test_the_systems_memory(machine):
    assert machine(proc__meminfo=MEMINFO) == 50 * 1024
    unlimited = {"proc__self__cgroup": "0::/\n", "sys__fs__cgroup__memory_dot_max": "max\n"}
    assert machine(**unlimited, sys__fs__cgroup__memory_dot_current="7\n") == 50 * 1024


def test_a_groups_limit_and_that_of_the_group_around_it(machine):
    given = {
        "proc__meminfo": MEMINFO,
        "proc__self__cgroup": "0::/a/b\n",
        "sys__fs__cgroup__a__b__memory_dot_max": "9000\n",
        "sys__fs__cgroup__a__b__memory_dot_current": "6000\n",
        "sys__fs__cgroup__a__b__memory_dot_stat": "anon 1\ninactive_file 500\n",
    }
    assert machine(**given) == 3500
    around = {"sys__fs__cgroup__a__memory_dot_max": "8000", "sys__fs__cgroup__a__memory_dot_current": "7000"}
    assert machine(**around) == 1000
    assert machine(sys__fs__cgroup__a__memory_dot_current="8100") == 0


def test_the_first_version_of_groups(machine):
    given = {
        "proc__self__cgroup": "5:cpu,cpuacct:/x\n4:memory:/x\n",
        "sys__fs__cgroup__memory__x__memory_dot_limit_in_bytes": "9000",
        "sys__fs__cgroup__memory__x__memory_dot_usage_in_bytes": "6000",
    }
    assert machine(**given) == 3000


# Together


def test_training_does_not_start(run_program, monkeypatch, tmp_path):
    """Of each word 8 numbers in the embedding, 8 and a bias in the output layer, and four copies of each."""
    config = tiny(tmp_path, tokenizer="words")
    needed = memory.needed_memory(options_of(tokenizer="words", units=8), 20)
    assert sum(needed.values()) == 20 * (8 + 9) * 4 * 4
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    monkeypatch.setattr(LanguageModel, "_made", lambda *_: pytest.fail("a model was made"))
    code, out, err = run_program(train, *flags_of(config))
    assert (code, out) == (1, "")
    message = err.splitlines()[-1]
    assert "a vocabulary of" in message
    assert "tokens takes 0.0 GB of memory: weights, gradients and --optimizer=adam's state" in message
    assert "lower --vocabulary_size" in message
    assert not (tmp_path / "model" / "config.json").exists()


def test_a_million_words(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 12 * 10**9)
    memory.check_vocabulary(options_of(units=256), 1_000_000)
    with pytest.raises(train.UserError) as raised:
        memory.check_vocabulary(options_of(units=1024), 1_000_000)
    expected = "takes 32.8 GB of memory: weights, gradients and --optimizer=adam's state, "
    expected += "16.4 GB of the embedding and 16.4 GB of the output layer; 12.0 GB are available: lower"
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)
