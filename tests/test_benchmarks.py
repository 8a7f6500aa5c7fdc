"""The benchmark of language models, as a user runs it, on little text."""

from __future__ import annotations

import pydoc_data.topics
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "language_models.py"
WORDS = pydoc_data.topics.topics["assignment"].split()[:2500]


def run(corpus: Path, work_dir: Path, rows: str) -> subprocess.CompletedProcess:
    command = [sys.executable, BENCHMARK, f"--corpus={corpus}", f"--rows={rows}", f"--work_dir={work_dir}"]
    return subprocess.run([*command, "--units=8", "--epochs=1"], capture_output=True, text=True)


def table(output: str) -> dict[str, list[float | None]]:
    """The columns of numbers, by row, of the table at the end."""
    lines = [line.strip("|").split("|") for line in output.partition("|---|")[2].splitlines()[1:]]
    return {
        name.strip(): [float(re.sub("[ ,M]", "", cell)) if cell.strip() else None for cell in cells]
        for name, *cells in lines
    }


def corpus_of_splits(folder: Path) -> Path:
    """Words between spaces; those of the other splits occur in training, too."""
    folder.mkdir()
    for split, words in (("train", WORDS), ("valid", WORDS[:700]), ("test", WORDS[700:1500])):
        lines = [" ".join(words[start : start + 10]) for start in range(0, len(words), 10)]
        (folder / f"corpus.{split}.txt").write_text("".join(f" {line} \n" for line in lines))
    return folder


def corpus_of_text(folder: Path) -> Path:
    path = folder.with_suffix(".txt")
    path.write_text("\n".join(pydoc_data.topics.topics.values())[:60_000])
    return path


@pytest.mark.parametrize("make", [corpus_of_splits, corpus_of_text])
def test_rows_are_trained_evaluated_and_kept(tmp_path, make):
    corpus, work = make(tmp_path / "corpus"), tmp_path / "work"
    done = run(corpus, work, "interpolated,sparse")
    assert done.returncode == 0, done.stderr
    rows = table(done.stdout)
    kneser_ney, sparse, network, mixed = rows.values()
    assert list(rows)[-1] == "interpolated with Kneser-Ney"
    for validation, test, weights, minutes, rate in (kneser_ney, sparse, network):
        assert min(validation, test) > 1
        assert min(weights, minutes + 0.05, rate) > 0
    assert mixed[0] <= min(kneser_ney[0], network[0])  # the weights are fitted on validation
    assert mixed[2:] == [None] * 3
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    assert table(run(corpus, work, "interpolated,sparse").stdout) == rows
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == before


def test_rows_that_there_are_not(tmp_path):
    done = run(tmp_path, tmp_path, "transformer")
    assert done.returncode == 2
    assert "--rows=transformer: there are Kneser-Ney 5-gram; " in done.stderr


def test_text_that_cannot_be_read(tmp_path):
    corpus = tmp_path / "latin.txt"
    corpus.write_bytes("one and a \xbd".encode("latin1"))
    done = run(corpus, tmp_path / "work", "kneser-ney 5")
    assert done.returncode == 1
    assert "latin.txt, line 1: not UTF-8 text" in done.stderr.splitlines()[-1]
