"""The lecture's table of language models, of any corpus and of a size that two cores can train.

    python benchmarks/language_models.py --corpus=PATH [--rows=TEXT,...] [--epochs=2] [--units=200]

PATH is a folder whose files *train*, *valid* and *test* have words between spaces, as the Penn Treebank's and
WikiText-2's have, or a file or folder of any text, of which the last tenth is for the test, and a tenth of
the rest for validation. Each row is trained as zoo-train does it, in a process of its own, one after the
other: counted models as they are, recurrent ones --units wide, --epochs long, by Adam (MaxEnt by Adagrad), 20
sequences of 35 words at a time. Rows below one that they belong to are that model again, with something at
evaluation.

Prints, of each row, the perplexity on validation and test, how many weights (or probabilities) there are, the
minutes of training, and words a second of training steps (of counted models: of all of it). With --work_dir
models and results are kept, and rows that are done are not trained again. --rows chooses those that have a
TEXT in their names, and those that they belong to.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, os.fspath(Path(__file__).parents[1]))  # before this folder, which has a serving.py
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from interleaved import machine

from serving.program import UserError
from training.config import make_config
from training.evaluate import evaluate
from training.scoring import Adaptation
from training.train import train
from zoo.model_directory import load_model

KNESER_NEY = "Kneser-Ney 5-gram"
ADAPTED = "LSTM + adaptive softmax"
LINEAR_CELLS = {  # and their options
    **dict.fromkeys(("min_gru", "min_lstm", "sru", "qrnn", "rg_lru"), ""),
    "mlstm": "heads=4,normalize=true",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        settings: fields of training's Config, beside those that all rows have.
        of: the name of the row whose model it is; nothing is trained then.
        adaptation: what this model does at evaluation.
        mixed_with: the name of a row that it is interpolated with.
    """

    name: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    of: str = ""
    adaptation: Adaptation | None = None
    mixed_with: str = ""


def rows(units: int, epochs: int) -> list[Row]:
    """The table, of networks so wide and trained so long: the lecture's rows, and what came after them."""
    common = {
        **{"cell": "lstm", "units": units, "dropout": 0.1, "epochs": epochs},
        **{"batch_size": 20, "sequence_length": 35, "evaluation_batch_size": 10},
        **{"optimizer": "adam", "learning_rate": 5e-3, "schedule": "cosine", "global_clipnorm": 1.0},
    }

    def network(name: str, **settings: Any) -> Row:
        return Row(name, {**common, **settings})

    elman, adaptive = {"cell": "elman"}, {"output_layer": "adaptive"}
    # Adam moves the weights of rare n-grams as far as any other's, and learns by heart what it has seen. Of
    # texts as small as two cores can train on, n-grams longer than five do not help.
    maxent = {
        **{"output_layer": "maxent", "output_options": "order=5,buckets=262144,scale=3"},
        **{"optimizer": "adagrad", "learning_rate": 0.1, "initial_accumulator": 3e-6},
    }
    two_layers = {"layers": 2, "skip": "residual"}
    spelled = {"input_layer": "character_cnn", "learning_rate": 2e-3}  # it stands no more
    samples = {"output_options": "samples=2048"}
    sampled = {"output_layer": "sampled", **samples}
    projected = {"cell": "projected_lstm", "cell_options": f"projection={units}", "units": 2 * units}
    adapted = functools.partial(Row, of=ADAPTED)
    dynamic = Adaptation(dynamic_learning_rate=5e-5, dynamic_segment=20, dynamic_statistics=500)
    awd_lstm = {
        **{"layers": 3, "last_units": units, "embedding_size": units, "units": 2 * units},
        **{"tie_embeddings": True, "weight_drop": 0.2, "locked_dropout": True, "embedding_dropout": 0.05},
        **{"activation_regularization": 2.0, "temporal_activation_regularization": 1.0},
        **{"random_sequence_length": True, "average_weights_after": 5},
    }
    return [
        Row(KNESER_NEY, {"model": "ngram", "order": 5, "discount_fallback": "0.5,1,1.5"}),
        Row("Sparse non-negative matrix", {"model": "snm", "skip_words": 3, "tied_skips": 10, "epochs": 1}),
        network("RNN + MaxEnt 5-gram", **elman, **maxent),
        network("RNN + BlackOut", **elman, output_layer="blackout", **samples),
        network("LSTM with projection + sampled softmax", **projected, **sampled),
        network("2-layer of these + CNN inputs", **projected, **sampled, **two_layers, **spelled),
        network("2-layer LSTM + adaptive softmax", **adaptive, **two_layers),
        network(ADAPTED, **adaptive),
        adapted("  and a neural cache", adaptation=Adaptation(500, 0.1, 0.3)),
        adapted("  and dynamic evaluation", adaptation=dynamic),
        adapted("  and the mean of 10 dropouts", adaptation=Adaptation(dropout_samples=10)),
        adapted("  interpolated with Kneser-Ney", mixed_with=KNESER_NEY),
        network("LSTM + full softmax"),
        network("LSTM + tied softmax", tie_embeddings=True),
        network("LSTM + sampled softmax", **sampled),
        network("LSTM + noise-contrastive estimation", output_layer="nce", **samples),
        network("LSTM + BlackOut", output_layer="blackout", **samples),
        network("LSTM + hierarchical softmax", output_layer="hierarchical"),
        network("LSTM + mixture of 3 softmaxes", output_layer="mixture", output_options="components=3"),
        network("AWD-LSTM", **awd_lstm),
        network("Mogrifier LSTM + adaptive softmax", cell="mogrifier_lstm", **adaptive),
        *(
            network(
                f"2-layer {cell} + adaptive softmax",
                **{"cell": cell, "cell_options": options, **two_layers, **adaptive},
            )
            for cell, options in LINEAR_CELLS.items()
        ),
    ]


def corpus_settings(corpus: Path, vocabulary_size: int) -> dict[str, Any]:
    """What to read, and what its words are."""
    if corpus.is_dir():
        splits = {}
        for split, word in (("train", "train"), ("validation", "valid"), ("test", "test")):
            splits[f"{split}_path"] = os.fspath(next(iter(sorted(corpus.glob(f"*{word}*"))), ""))
        if all(splits.values()):
            return {
                "dataset": "text",
                **splits,
                "tokenizer": "whitespace",
                "vocabulary_size": vocabulary_size,
            }
    return {
        "dataset": f"text:{corpus}",
        **{"validation_fraction": 0.1, "test_fraction": 0.1, "tokenizer": "words"},
        "vocabulary_size": vocabulary_size or 10_000,  # so that some words of the training text are unknown
    }


class Clock(keras.callbacks.Callback):
    """How long each training step took, and how many tokens it had."""

    def __init__(self):
        super().__init__()
        self.rates: list[float] = []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(logs["tokens"] / logs["seconds"])


def trained(settings: Mapping[str, Any], model_dir: Path) -> dict[str, float]:
    """Train a model; its size and its time."""
    clock, started = Clock(), time.perf_counter()
    train(make_config(None, {**settings, "output_dir": os.fspath(model_dir)}), [clock])
    seconds = time.perf_counter() - started
    if not clock.rates:  # it was counted
        tokens = np.memmap(model_dir / "cache" / "worker-0" / "train.tokens", np.int32, "r")
        clock.rates.append(len(tokens) / seconds)
    weights = [weight for weight in load_model(model_dir).weights if "float" in weight.dtype]
    return {
        "weights": sum(int(np.prod(weight.shape)) for weight in weights),
        "minutes": seconds / 60,
        "words/s": statistics.median(clock.rates),
    }


def evaluated(model_dir: Path, adaptation: Adaptation | None, others: Sequence[Path]) -> dict[str, float]:
    """The perplexity on both splits."""
    others = [os.fspath(other) for other in others]
    return {
        split: evaluate(os.fspath(model_dir), split, None, adaptation, others)["perplexity"]
        for split in ("validation", "test")
    }


def run(row: Row, settings: Mapping[str, Any], work: Path) -> dict[str, float]:
    """A row's figures, from a process of its own unless they are there."""
    path = work / f"{_file_name(row.name)}.json"
    if not path.exists():
        model_dir = work / _file_name(row.of or row.name)
        others = [work / _file_name(row.mixed_with)] if row.mixed_with else []
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, context) as process:
            figures = {} if row.of else process.submit(trained, settings, model_dir).result()
            figures |= process.submit(evaluated, model_dir, row.adaptation, others).result()
        path.write_text(json.dumps(figures))
    return json.loads(path.read_text())


def _file_name(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip()).lower()


def line(name: str, figures: Mapping[str, float]) -> str:
    perplexities = f"| {name:38} | {figures['validation']:10.2f} | {figures['test']:8.2f} |"
    if "weights" not in figures:
        return f"{perplexities} {'':>9} | {'':>7} | {'':>8} |"
    weights, minutes, rate = figures["weights"] / 1e6, figures["minutes"], figures["words/s"]
    return f"{perplexities} {weights:7.2f} M | {minutes:7.1f} | {rate:8,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="a folder with the splits, or any text")
    parser.add_argument("--rows", default="", help="texts in the names of the rows wanted, between commas")
    parser.add_argument("--units", type=int, default=200, help="of the recurrent models")
    parser.add_argument("--epochs", type=int, default=2, help="of the recurrent models")
    parser.add_argument("--vocabulary_size", type=int, default=0, help="most frequent words; 0: see above")
    parser.add_argument("--work_dir", type=Path, help="where models and results are kept")
    arguments = parser.parse_args()
    table = rows(arguments.units, arguments.epochs)
    wanted = arguments.rows.lower().split(",")
    names = {row.name for row in table if any(text in row.name.lower() for text in wanted)}
    if not names:
        parser.error(f"--rows={arguments.rows}: there are {'; '.join(row.name.strip() for row in table)}")
    names |= {other for row in table if row.name in names for other in (row.of, row.mixed_with)}
    chosen = [row for row in table if row.name in names]
    corpus = corpus_settings(arguments.corpus, arguments.vocabulary_size)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        work = arguments.work_dir or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        for row in chosen:
            print(f"{row.name.strip()} ...", file=sys.stderr, flush=True)
            try:
                figures = run(row, {**corpus, **row.settings}, work)
            except UserError as error:
                sys.exit(str(error))
            lines.append(line(row.name, figures))
            print(lines[-1], flush=True)
    print(f"\n{arguments.corpus}; {arguments.units} units, {arguments.epochs} epochs; {machine()}\n")
    print(f"| {'':38} | validation | {'test':>8} | {'weights':>9} | minutes | words/s  |")
    print("|---|---|---|---|---|---|", *lines, sep="\n")


if __name__ == "__main__":
    main()
