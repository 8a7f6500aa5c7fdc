"""How fast zoo-serve answers, beside what the same models do in process.

    python benchmarks/serving.py [--seconds=5] [--rounds=3] [--work_dir=DIR]

A classifier of 20-word sentences (Embedding 64, LSTM 64), asked by one caller, by 32, and at half of the rate
that 32 have reached; and a language model (2 x 650 LSTM, 10,000 words) that writes one text, and 32 at once.
Beside it the same classifier behind a plain gRPC servicer, and a servicer that does nothing: as fast as gRPC
itself is in Python. Servers and load are processes of their own, and share the machine. In each round all is
measured once, the sessions in process among it; printed are medians. With --work_dir the models, of one
training step, are kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import app, flags

sys.path.insert(0, os.fspath(Path(__file__).parents[1]))  # before this folder, which has a serving.py

CALLERS = STREAMS = 32
SENTENCE_WORDS, VOCABULARY = 20, 10_000
NEW_TOKENS = 64


def program(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", f"from serving import program; program.{name}()", *arguments]


def words(count: int, seed: int) -> Iterator[str]:
    """Words of a made-up language, the frequent ones more frequent."""
    chance = random.Random(seed)
    for _ in range(count):
        yield f"w{min(int(chance.paretovariate(0.6)), VOCABULARY - 2)}"


def make_models(work: Path) -> Path:
    """Trains for a step and exports both models; the folder of the exports."""
    sentences = ["text\tlabel"]
    for index in range(4000):
        sentences.append(" ".join(words(SENTENCE_WORDS, index)) + f"\t{'yes' if index % 2 else 'no'}")
    (work / "sentences.tsv").write_text("\n".join(sentences) + "\n")
    every = [f"w{number}" for number in range(VOCABULARY - 2)]
    (work / "text.txt").write_text(" ".join([*every, *words(200_000, 1)]) + "\n")
    recipes = {
        "classifier": f"--dataset=tsv:{work}/sentences.tsv --task=classification --units=64 "
        "--embedding_size=64 --bidirectional=false --pooling=final",
        "writer": f"--dataset=text:{work}/text.txt --task=language_model --tokenizer=words "
        f"--vocabulary_size={VOCABULARY} --units=650 --embedding_size=650 --layers=2",
    }
    for name, recipe in recipes.items():
        model_dir, base = f"--output_dir={work}/{name}_model", f"--export_base={work}/exports/{name}"
        subprocess.run(program("zoo_train", *recipe.split(), model_dir, "--max_steps=1"), check=True)
        subprocess.run(program("zoo_export", f"--model_dir={work}/{name}_model", base), check=True)
    return work / "exports"


@contextlib.contextmanager
def served(exports: Path, work: Path) -> Iterator[int]:
    """The port of a server of both models."""
    models = "".join(
        f'config {{ name: "{name}" base_path: "{exports.resolve()}/{name}" model_platform: "tensorflow" }}\n'
        for name in ("classifier", "writer")
    )
    (work / "models.config").write_text(f"model_config_list {{\n{models}}}\n")
    command = program(
        "zoo_serve", f"--model_config_file={work}/models.config", "--port=0", "--enable_batching"
    )
    with running(command) as line:
        yield json.loads(line)["port"]


@contextlib.contextmanager
def plainly_served(*arguments: str) -> Iterator[int]:
    """The port of a plain servicer."""
    script = str(Path(__file__).with_name("plain_servicer.py"))
    with running([sys.executable, script, *arguments]) as line:
        yield int(line)


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[str]:
    """The first line that a program prints, while it runs."""
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline()
    finally:
        server.terminate()
        server.wait()


def load(port: int, model: str, *arguments: str) -> Mapping[str, float]:
    """What `zoo-query bench` measures."""
    seconds = f"--seconds={flags.FLAGS.seconds}"
    server = (f"--server=127.0.0.1:{port}", f"--model={model}", "--json", seconds)
    done = subprocess.run(
        program("zoo_query", "bench", *arguments, *server), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        check=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def in_process(exports: Path) -> dict[str, Callable[[], float]]:
    """Rows, or tokens, per second of the sessions themselves, without a server."""
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in zoo-serve
    from serving.saved_model import SavedModel

    models = {name: SavedModel(str(next((exports / name).iterdir()))) for name in ("classifier", "writer")}
    classify = models["classifier"].signatures["serving_default"]
    start, step = (models["writer"].signatures[name] for name in ("start", "step"))

    def rows(batch: int) -> float:
        text = np.array([" ".join(words(SENTENCE_WORDS, row)).encode() for row in range(batch)], np.object_)
        return batch * rate(lambda: models["classifier"].run(classify, [text], list(classify.output_tensors)))

    def tokens(batch: int) -> float:
        prompts = np.array([b"w1 w2"] * batch, np.object_)
        (state,) = models["writer"].run(start, [prompts], ["state"])
        feeds = [state if alias == "state" else step.defaults[alias] for alias in step.input_tensors]
        return batch * rate(lambda: models["writer"].run(step, feeds, list(step.output_tensors)))

    return {
        "rows, one at a time": lambda: rows(1),
        f"rows, {CALLERS} at a time": lambda: rows(CALLERS),
        "tokens, one text": lambda: tokens(1),
        f"tokens, {STREAMS} texts": lambda: tokens(STREAMS),
    }


def rate(run: Callable[[], object]) -> float:
    """Runs per second."""
    for _ in range(3):
        run()
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < flags.FLAGS.seconds / 2:
        run()
        count += 1
    return count / passed


def requests(zoo: int, plain: int, nothing: int) -> dict[str, Callable[[], Mapping[str, float]]]:
    """Loads by name, for the servers at these ports; each one's result."""
    sentence = " ".join(words(SENTENCE_WORDS, 0))
    reached = 0.0

    def classify(port: int, how: str) -> Mapping[str, float]:
        return load(port, "classifier", "classify", f"--text={sentence}", how)

    def at_full_rate() -> Mapping[str, float]:
        nonlocal reached
        result = classify(zoo, f"--callers={CALLERS}")
        reached = result["requests_per_second"]
        return result

    def stream(callers: int, tokens_per_message: int) -> Mapping[str, float]:
        return load(
            zoo, "writer", "generate", "--prompt=w1 w2", f"--max_new_tokens={NEW_TOKENS}", "--stream",
            f"--tokens_per_message={tokens_per_message}", f"--callers={callers}",
        )  # fmt: skip

    return {
        "classify, 1 caller": lambda: classify(zoo, "--callers=1"),
        "  a plain servicer": lambda: classify(plain, "--callers=1"),
        "  gRPC, doing nothing": lambda: classify(nothing, "--callers=1"),
        f"classify, {CALLERS} callers": at_full_rate,
        f"  a plain servicer, {CALLERS} callers": lambda: classify(plain, f"--callers={CALLERS}"),
        f"  gRPC, doing nothing, {CALLERS} callers": lambda: classify(nothing, f"--callers={CALLERS}"),
        "classify, half that rate": lambda: classify(zoo, f"--rate={reached / 2:.0f}"),
        "stream, 1 text": lambda: stream(1, 1),
        f"stream, {STREAMS} texts": lambda: stream(STREAMS, 1),
        f"stream, {STREAMS} texts, 8 tokens a message": lambda: stream(STREAMS, 8),
    }


def median(results: Sequence[Mapping[str, float]], key: str) -> str:
    values = [result[key] for result in results if result.get(key) is not None]
    return f"{statistics.median(values):10.2f}" if values else f"{'':10}"


def main(_: Sequence[str]) -> None:
    values = flags.FLAGS
    with tempfile.TemporaryDirectory() as folder:
        work = Path(values.work_dir or folder)
        work.mkdir(parents=True, exist_ok=True)
        exports = work / "exports" if (work / "exports").exists() else make_models(work)
        alone: dict[str, list[float]] = {}
        loaded: dict[str, list[Mapping[str, float]]] = {}
        classifier = str(next((exports / "classifier").iterdir()))
        with served(exports, work) as zoo, plainly_served(classifier) as plain, plainly_served() as nothing:
            sessions, loads = in_process(exports), requests(zoo, plain, nothing)
            for turn in range(values.rounds):
                for name, run in sessions.items():
                    print(f"round {turn + 1}: {name}", file=sys.stderr)
                    alone.setdefault(name, []).append(run())
                for name, ask in loads.items():
                    print(f"round {turn + 1}: {name}", file=sys.stderr)
                    loaded.setdefault(name, []).append(ask())
    print(f"{os.cpu_count()} cores, medians of {values.rounds} rounds of {values.seconds:g} s\n")
    for name, rates in alone.items():
        print(f"in process: {name:44} {statistics.median(rates):10.0f} per second")
    keys = (
        "requests_per_second",
        "tokens_per_second",
        "p50_ms",
        "p99_ms",
        "first_token_p50_ms",
        "first_token_p99_ms",
    )
    print(f"\n{'':44} " + " ".join(f"{key.removesuffix('_ms')[-10:]:>10}" for key in keys) + "  errors")
    for name, results in loaded.items():
        errors = sum(sum(result["errors"].values()) for result in results)  # type: ignore[attr-defined]
        print(f"{name:44} " + " ".join(median(results, key) for key in keys) + f"  {errors}")


if __name__ == "__main__":
    flags.DEFINE_float("seconds", 5.0, "Of each measurement.", lower_bound=1)
    flags.DEFINE_integer("rounds", 3, "Each measures everything once.", lower_bound=1)
    flags.DEFINE_string("work_dir", "", "Where models are kept; empty: nowhere.")
    app.run(main)
