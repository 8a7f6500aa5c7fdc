"""How fast does a word-level LSTM language model train with each output layer?

    python benchmarks/output_layers.py [--vocabulary_size=33278] [--units=200] [--heads=full,adaptive]

One training step each, in turns, each in a process of its own: embedding, LSTM layers, output layer,
clipping by the global norm, SGD, states carried from batch to batch, 20 sequences of 35 steps. Without
--corpus the words are drawn from Zipf's distribution. An output layer is a name of zoo.heads.HEADS, with
options as `sampled:samples=2048:alpha=1`. Prints words/s (medians), and how many times as fast each is as the
full softmax.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).parents[1]))  # before this folder, which has a serving.py
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from interleaved import machine, measure, median, processes
from word_language_model import BATCH, STEPS, tokens, zoo_step

from training.layer_options import check_options, parse_options
from zoo.heads import HEADS


def options_of(text: str) -> dict:
    """What a language model takes for an output layer written as NAME[:OPTION=VALUE...]."""
    name, *options = text.split(":")
    if name not in HEADS:
        raise SystemExit(f"--heads={text}: must be among {', '.join(HEADS)}")
    listed = ",".join(options)
    check_options("heads", listed, HEADS[name])
    return {"output_layer": name, "output_options": parse_options("heads", listed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--corpus", default="", help="a file of words between spaces, such as wikitext2's")
    parser.add_argument("--vocabulary_size", type=int, default=0, help="most frequent words kept; 0: all")
    parser.add_argument("--units", type=int, default=200)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", default=",".join(HEADS), help="output layers, between commas")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    ids, size = tokens(arguments)
    shape = (size, arguments.units, arguments.layers)
    names = ["full", *(name for name in arguments.heads.split(",") if name != "full")]
    makers = {name: functools.partial(zoo_step, *shape, ids, **options_of(name)) for name in names}
    with processes(makers) as steps:
        seconds = median(measure(steps, arguments.rounds))

    print(
        f"{machine()}; {arguments.layers} x {arguments.units} units, {size:,} words, batch {BATCH} x {STEPS}"
    )
    width = max(map(len, names)) + 2
    print(f"{'':{width}}{'ms/step':>9}{'words/s':>10}{'of full':>9}")
    for name, value in seconds.items():
        words, ratio = BATCH * STEPS / value, seconds["full"] / value
        print(f"{name:{width}}{value * 1e3:9.1f}{words:10,.0f}{ratio:8.2f}x")


if __name__ == "__main__":
    main()
