"""From records to batches.

Continuous text is read in lanes (truncated back-propagation through time): batch row b reads the
b-th part of the text from its beginning to its end, a window of `sequence_length` tokens a step, so
that the states of one batch are the initial states of the next. Separate examples are batched with
others of about their length.

Batches are a function of data, seed, epoch and step, so training can be taken up at any of them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from serving.program import UserError
from training.datasets.base import Dataset
from training.sequence_lengths import random_cuts, random_steps
from zoo.models import TaskModel

BUCKETS = (8, *(size for power in range(4, 13) for size in (3 << power - 2, 1 << power)), 6144, 8192)
# Examples that are shuffled at a time: so many, or as many as so large features allow.
SHUFFLED_EXAMPLES = 100_000
SHUFFLED_BYTES = 1 << 29
TOKEN_BYTES = 4


@dataclass(frozen=True)
class Batches:
    """A split as batches.

    `open(epoch, step)` gives the epoch's batches from a step on, and `spec` what all of them are;
    `continuous` says that states are to be carried from batch to batch; `fingerprint` tells one content from
    another; `relative_length(epoch, step)` is a step's length by that which the learning rate is meant for.
    """

    steps: int
    continuous: bool
    batch_size: int
    fingerprint: str
    open: Callable[[int, int], tf.data.Dataset]
    relative_length: Callable[[int, int], float] = lambda epoch, step: 1.0

    @functools.cached_property
    def spec(self) -> Any:
        return self.open(0, 0).element_spec


def make_batches(
    model: TaskModel,
    dataset: Dataset,
    split: str,
    batch_size: int,
    sequence_length: int,
    cache_dir: Path,
    seed: int | None = None,
    replicas: int = 1,
    batch_tokens: int = 0,
    random_length: bool = False,
) -> Batches:
    """A split's batches; shuffled, or of random length, where a seed is given, which also leaves out an
    incomplete window."""
    if not dataset.stream:
        return bucketed_batches(
            model,
            dataset.load(split),
            batch_size,
            seed,
            replicas,
            batch_tokens,
            cache_dir / f"{split}.features",
        )
    tokens = write_tokens(model, dataset.load(split), cache_dir / f"{split}.tokens")
    if random_length and seed is not None:
        return random_length_batches(tokens, batch_size, sequence_length, seed, replicas)
    return contiguous_batches(
        tokens, batch_size, sequence_length, drop_remainder=seed is not None, replicas=replicas
    )


@dataclass(frozen=True)
class TokenFile:
    """Tokens on disk: int32, the boundary token first, `count` more after it."""

    path: Path
    count: int
    fingerprint: str


def write_tokens(model: TaskModel, records: tf.data.Dataset, path: Path) -> TokenFile:
    """Tokenize a continuous text into a file, once for all epochs, in memory for a few records only."""
    targets = records.batch(1).map(lambda record: model.features(record)["targets"].flat_values)
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, count = hashlib.sha256(), 0
    with _named_in_errors(path), open(path, "wb") as file:
        file.write(np.int32(model.tokenizer.boundary_id).tobytes())
        for tokens in targets.prefetch(2).as_numpy_iterator():
            file.write(tokens.tobytes())
            digest.update(tokens.tobytes())
            count += len(tokens)
    return TokenFile(path, count, digest.hexdigest())


def contiguous_batches(
    tokens: TokenFile, batch_size: int, sequence_length: int, drop_remainder: bool, replicas: int = 1
) -> Batches:
    """Lanes through a token file: `inputs`, `targets` int32 and `mask` bool, [batch, sequence_length].

    All lanes have the same length. What does not fill lanes and windows is left out with
    `drop_remainder`, and masked otherwise. With several replicas a batch comes in as many parts, one
    after the other, the lanes of a replica always in the same one.
    """
    lane_length = tokens.count // batch_size if drop_remainder else math.ceil(tokens.count / batch_size)
    steps = lane_length // sequence_length if drop_remainder else math.ceil(lane_length / sequence_length)
    if steps == 0:
        raise _too_few(tokens, batch_size, sequence_length)
    rows = batch_size // replicas
    path = tokens.path.with_suffix(".batches")
    _write_windows(tokens, path, np.arange(batch_size) * lane_length, sequence_length, steps)
    record = TOKEN_BYTES * rows * (sequence_length + 1)

    def arrange(window: tf.Tensor, part: tf.Tensor) -> dict[str, tf.Tensor]:
        window = tf.reshape(tf.io.decode_raw(window, tf.int32), [rows, sequence_length + 1])
        row = tf.range(rows, dtype=tf.int64)[:, tf.newaxis] + rows * (part % replicas)
        first = (part // replicas) * sequence_length
        place = first + tf.range(sequence_length, dtype=tf.int64)  # in its lane
        return {
            "inputs": window[:, :-1],
            "targets": window[:, 1:],
            "mask": (place < lane_length) & (row * lane_length + place < tokens.count),
        }

    def open_epoch(epoch: int, first_step: int) -> tf.data.Dataset:
        first_part = first_step * replicas
        parts = tf.data.Dataset.range(first_part, steps * replicas)
        windows = tf.data.FixedLengthRecordDataset(str(path), record, header_bytes=record * first_part)
        return _ahead(tf.data.Dataset.zip((windows, parts)).map(arrange))

    return Batches(steps, True, batch_size, tokens.fingerprint, open_epoch)


def random_length_batches(
    tokens: TokenFile, batch_size: int, sequence_length: int, seed: int, replicas: int = 1
) -> Batches:
    """Lanes through a token file as in `contiguous_batches`, in windows of lengths drawn anew each epoch."""
    lane_length, rows = tokens.count // batch_size, batch_size // replicas
    if lane_length == 0:
        raise _too_few(tokens, batch_size, sequence_length)
    lane_starts = np.arange(batch_size)[:, np.newaxis] * lane_length
    cuts = functools.partial(random_cuts, lane_length, sequence_length, seed)
    types = {"inputs": tf.int32, "targets": tf.int32, "mask": tf.bool}
    spec = {name: tf.TensorSpec([rows, None], dtype) for name, dtype in types.items()}

    def open_epoch(epoch: int, first_step: int) -> tf.data.Dataset:
        def parts() -> Iterator[dict[str, np.ndarray]]:
            ids = np.memmap(tokens.path, np.int32, "r")
            for start, end in itertools.pairwise(cuts(epoch)[first_step:]):
                windows = ids[lane_starts + np.arange(start, end + 1)]
                for part in np.split(windows, replicas):
                    mask = np.ones([rows, end - start], bool)
                    yield {"inputs": part[:, :-1], "targets": part[:, 1:], "mask": mask}

        return _ahead(tf.data.Dataset.from_generator(parts, output_signature=spec))

    def relative_length(epoch: int, step: int) -> float:
        return float(cuts(epoch)[step + 1] - cuts(epoch)[step]) / sequence_length

    steps = random_steps(lane_length, sequence_length)
    return Batches(steps, True, batch_size, tokens.fingerprint, open_epoch, relative_length)


def _too_few(tokens: TokenFile, batch_size: int, sequence_length: int) -> UserError:
    return UserError(
        f"{tokens.path.stem}: {tokens.count} tokens are too few for --batch_size={batch_size} times "
        f"--sequence_length={sequence_length}; lower one of them"
    )


def _write_windows(tokens: TokenFile, path: Path, lane_starts, sequence_length: int, steps: int) -> None:
    """Write tokens in the order in which they are used: of each step, each lane's window and its next token.

    A step is then one read, wherever training is taken up.
    """
    ids = np.memmap(tokens.path, np.int32, "r")
    window = lane_starts[:, np.newaxis] + np.arange(sequence_length + 1)
    with _named_in_errors(path), open(path, "wb") as file:
        for step in range(steps):
            # Windows that reach beyond the last token repeat it; they are masked there.
            file.write(ids[np.minimum(window + step * sequence_length, tokens.count)].tobytes())


@contextlib.contextmanager
def _named_in_errors(path: Path) -> Iterator[None]:
    """When the disk is full, the system names no file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def bucketed_batches(
    model: TaskModel,
    records: tf.data.Dataset,
    batch_size: int,
    seed: int | None = None,
    replicas: int = 1,
    batch_tokens: int = 0,
    cache: Path | None = None,
) -> Batches:
    """Examples of similar length together: features padded to [batch, time], and `mask` bool.

    With `batch_tokens`, a batch holds as many examples as that is tokens of the longest of its bucket. With
    `cache`, features are made once, and kept on disk below that name for all epochs.
    """
    rows = [max(batch_tokens // bound, replicas) if batch_tokens else batch_size for bound in BUCKETS]
    rows = [size // replicas for size in (*rows, rows[-1])]

    # AutoGraph, which would look for Python's own control flow in it, takes longer than all the rest.
    features_of = tf.autograph.experimental.do_not_convert(model.features)
    made = records.batch(256).map(features_of)
    if cache:  # of so many at a time, as it keeps an index, and holds no more than ten million
        made = made.cache(_fresh(cache))
    examples = made.unbatch()

    def batched(features: tf.data.Dataset) -> tf.data.Dataset:
        lengths = features.map(lambda example: (example, tf.size(example["inputs"])))
        batches = lengths.bucket_by_sequence_length(lambda example, length: length, BUCKETS, rows)
        return batches.map(_with_mask)

    def open_epoch(epoch: int, first_step: int) -> tf.data.Dataset:
        features, taken = examples, parts
        if seed is not None:
            features = features.shuffle(shuffled, seed=hash((seed, epoch)) % 2**31)
            taken = parts // replicas * replicas  # no step is left to some of the replicas
        return _ahead(batched(features).take(taken).skip(first_step * replicas))

    parts, count, size, fingerprint = 0, 0, 0, hashlib.sha256()
    for batch in _checked(_ahead(batched(examples)).as_numpy_iterator(), cache):
        if (longest := batch["inputs"].shape[1]) >= BUCKETS[-1]:
            raise UserError(
                f"an example of {longest:,} tokens; separate examples have to have fewer than "
                f"{BUCKETS[-1]:,}: shorten it, or read the text with --text_mode=stream"
            )
        parts += 1
        count += len(batch["inputs"])
        for name in sorted(batch):
            size += batch[name].nbytes
            fingerprint.update(batch[name].tobytes())
    shuffled = max(1, min(SHUFFLED_EXAMPLES, SHUFFLED_BYTES * count // max(size, 1)))
    if parts < replicas:
        raise UserError(f"{parts} batches are too few for {replicas} replicas; lower --batch_size")
    return Batches(parts // replicas, False, batch_size, fingerprint.hexdigest(), open_epoch)


def _fresh(path: Path) -> str:
    """A name for files that are not there yet: what a run that was killed left is not gone on with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    return str(path)


def _ahead(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Some batches are made while others are used.

    Nothing is left to be tuned, and an iterator whose tuning thread sleeps may take half a minute to end.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(8).with_options(options)


def _checked(batches: Iterator, cache: Path | None) -> Iterator:
    """The batches.

    Raises UserError for what a model's `features` asserts of its records, and where the cache has no room.
    """
    try:
        yield from batches
    except tf.errors.InvalidArgumentError as error:
        found = re.search(r"assertion failed: \[(.*?)\]", error.message)
        raise UserError(found[1] if found else error.message) from error
    except (tf.errors.ResourceExhaustedError, tf.errors.InternalError) as error:
        raise UserError(f"{cache}: {error.message}") from error


def _with_mask(features: dict[str, tf.Tensor], lengths: tf.Tensor) -> dict[str, tf.Tensor]:
    return {**features, "mask": tf.sequence_mask(lengths, tf.shape(features["inputs"])[1])}
