"""How good the presets of each task are on public data, on two cores: accuracy and time.

    python benchmarks/tasks.py --data=DIR [--rows=NAME,...] [--seed=1] [--work_dir=DIR]

DIR holds the data sets by the names of the table below. Each row trains with zoo-train and evaluates with
zoo-evaluate on a test set that training has not seen, each in a process of its own, one after the other.
With --work_dir models are kept, and rows that are done are not trained again.
"""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: what is trained on what, and the figure to reach.

    `data` gives flags that say what to read, from the folder of the data sets and one for files made of them.
    """

    name: str
    data: Callable[[Path, Path], list[str]]
    train: Sequence[str]
    metric: str
    bar: float | None = None
    starts_from: str = ""  # the row whose model it is initialized from
    further: Sequence[str] = ()  # splits that the metric is shown of, beside the test's


def polarity(data: Path, made: Path) -> list[str]:
    folder = data / "sentence_polarity"
    return _labelled(
        made / "polarity.tsv",
        {"negative": folder / "rt-polarity.neg", "positive": folder / "rt-polarity.pos"},
    )


def subjectivity(data: Path, made: Path) -> list[str]:
    folder = data / "subjectivity"
    texts = {"subjective": folder / "quote.tok.gt9.5000", "objective": folder / "plot.tok.gt9.5000"}
    return _labelled(made / "subjectivity.tsv", texts)


def surnames(data: Path, made: Path) -> list[str]:
    files = sorted((data / "surnames").glob("[A-Z]*.txt"))
    return _labelled(made / "surnames.tsv", {path.stem: path for path in files if path.stem != "SOURCE"})


def _labelled(path: Path, texts: dict[str, Path]) -> list[str]:
    """A table of the lines of files, a label each; a random tenth for the test, another for validation."""
    rows = []
    for label, source in texts.items():
        lines = source.read_bytes().decode("utf-8", "replace").splitlines()
        rows += [f"{line.strip()}\t{label}\n" for line in lines if line.strip()]
    path.write_text("text\tlabel\n" + "".join(row.replace("\x85", " ") for row in rows), encoding="utf-8")
    return [f"--dataset=tsv:{path}", "--test_fraction=0.1"]


def _splits(kind: str, train: str, validation: str, test: str) -> Callable[[Path, Path], list[str]]:
    def flags_for(data: Path, made: Path) -> list[str]:
        paths = {"train": train, "validation": validation, "test": test}
        whole = {
            split: ",".join(str(data / name) for name in names.split(",")) for split, names in paths.items()
        }
        return [f"--dataset={kind}", *(f"--{split}_path={path}" for split, path in whole.items())]

    return flags_for


def _babi(task: str) -> Callable[[Path, Path], list[str]]:
    def flags_for(data: Path, made: Path) -> list[str]:
        """A tenth of the training stories is for validation."""
        stories = (data / "babi_en" / f"{task}_train.txt").read_text().split("\n1 ")
        random.Random(1).shuffle(stories)
        held_out = len(stories) // 10
        for name, part in (("validation", stories[:held_out]), ("train", stories[held_out:])):
            lines = "\n".join(story if story.startswith("1 ") else f"1 {story}" for story in part)
            (made / f"{task}_{name}.txt").write_text(lines.strip() + "\n")
        paths = {name: made / f"{task}_{name}.txt" for name in ("train", "validation")}
        paths["test"] = data / "babi_en" / f"{task}_test.txt"
        return ["--dataset=babi", *(f"--{split}_path={path}" for split, path in paths.items())]

    return flags_for


def _of_the_zoo(name: str) -> Callable[[Path, Path], list[str]]:
    return lambda data, made: [f"--dataset={name}", "--test_fraction=0.1"]


UD = _splits(
    "conllu",
    *(f"ud_ewt/en_ewt-ud-{split}.conllu" for split in ("train", "dev", "test")),
)
MULTI30K = _splits(
    "parallel",
    *(f"multi30k/{split}.de,multi30k/{split}.en" for split in ("train", "val", "test_2016_flickr")),
)
WNUT = _splits(
    "conll", "wnut17/wnut17train.conll", "wnut17/emerging.dev.conll", "wnut17/emerging.test.annotated"
)

ROWS = [
    Row("polarity", polarity, ["--preset=sentiment"], "accuracy", 0.76),
    Row("polarity_lm", polarity, ["--preset=sentiment_lm"], "nats_per_token"),
    Row("polarity_from_lm", polarity, ["--preset=sentiment_from_lm"], "accuracy", 0.76, "polarity_lm"),
    Row("polarity_without_lm", polarity, ["--preset=sentiment_from_lm"], "accuracy"),
    Row("polarity_attention", polarity, ["--preset=self_attention"], "accuracy", 0.76),
    Row("subjectivity", subjectivity, ["--preset=sentiment"], "accuracy", 0.90),
    Row("surnames", surnames, ["--preset=names"], "accuracy", 0.80),
    Row("ud_ewt", UD, ["--preset=parts_of_speech"], "accuracy", 0.945),
    Row("ud_ewt_softmax", UD, ["--preset=parts_of_speech", "--nocrf"], "accuracy"),
    Row("wnut17", WNUT, ["--preset=entities"], "f1", further=("train", "validation")),
    Row("multi30k", MULTI30K, ["--preset=translate"], "bleu", 25.0),
    Row("multi30k_without", MULTI30K, ["--preset=translate", "--attention=none"], "bleu"),
    Row("dates", _of_the_zoo("dates"), ["--preset=dates"], "exact_match", 0.99),
    Row("babi_1", _babi("qa1_single-supporting-fact"), ["--preset=babi"], "exact_match", 0.99),
    Row("babi_6", _babi("qa6_yes-no-questions"), ["--preset=babi"], "exact_match", 0.90),
    Row("highlighter", _of_the_zoo("python_source"), ["--preset=highlighter"], "accuracy", 0.98),
]


def run(row: Row, data: Path, work: Path, seed: int) -> dict[str, float | str]:
    """Train and evaluate; the metrics on the test set, and the minutes of training."""
    made = work / "data"
    made.mkdir(parents=True, exist_ok=True)
    model_dir, minutes = work / row.name, work / f"{row.name}.minutes"
    given = [*row.data(data, made), *row.train, f"--seed={seed}", f"--output_dir={model_dir}"]
    if row.starts_from:
        given.append(f"--initialize_from={work / row.starts_from}")
    print(f"zoo-train {' '.join(given)}", flush=True)
    if not minutes.exists():
        started = time.perf_counter()
        _program("zoo_train", *given)
        minutes.write_text(str((time.perf_counter() - started) / 60))
    results = {
        split: json.loads(
            _program("zoo_evaluate", f"--model_dir={model_dir}", f"--split={split}").splitlines()[-1]
        )
        for split in ("test", *row.further)
    }
    further = {f"{split}_{row.metric}": results[split][row.metric] for split in row.further}
    return {**results["test"], **further, "minutes": float(minutes.read_text())}


def _program(name: str, *arguments: str) -> str:
    command = [sys.executable, "-c", f"from serving import program; program.{name}()", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    return done.stdout


def main(arguments: Sequence[str]) -> None:
    values = flags.FLAGS
    known = [row.name for row in ROWS]
    chosen = values.rows or known
    if unknown := set(chosen) - set(known):
        raise app.UsageError(f"unknown rows {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(values.work_dir or folder)
        lines = []
        for row in (row for row in ROWS if row.name in chosen):
            result = run(row, Path(values.data), work, values.seed)
            bar = "" if row.bar is None else f"{row.bar:g}"
            lines.append(
                f"{row.name:20} {row.metric:15} {result[row.metric]:8.4f} {bar:>7} {result['minutes']:7.1f}  "
                + " ".join(
                    f"{k}={v:.4g}" for k, v in result.items() if isinstance(v, float) and k != "minutes"
                )
            )
            print(lines[-1], flush=True)
    print(f"\nseed {values.seed}\n{'row':20} {'test metric':15} {'is':>8} {'bar':>7} {'minutes':>7}")
    print("\n".join(lines))


if __name__ == "__main__":
    flags.DEFINE_string("data", None, "Folder of the data sets.", required=True)
    flags.DEFINE_list("rows", [], "Rows to run; all without.")
    flags.DEFINE_integer("seed", 1, "Of training and random splits.")
    flags.DEFINE_string("work_dir", "", "Where models are kept; empty: nowhere.")
    app.run(main)
