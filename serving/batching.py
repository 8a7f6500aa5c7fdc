"""Micro-batching: requests that wait for the same signature run as one batch.

A request joins those that want the same outputs of the same signature of the same version, and whose
inputs have the same shapes but for the first dimension, the batch; so nothing is ever padded. Whenever one
of the `num_batch_threads` of such a queue is free, all that waits runs, up to `max_batch_size` rows. So a
lone caller waits for nobody, and under load batches grow by themselves. If a batch fails, each of its
requests runs alone, so that one bad row fails alone.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import os
import time
import weakref
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import grpc
import numpy as np

from serving.metrics import Metrics
from serving.rpc import StatusError, invalid

Arrays = Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """The stock server's BatchingParameters, and its defaults but for the threads (there all cores)."""

    max_batch_size: int = 1000  # rows
    batch_timeout_seconds: float = 0.0  # how long to wait for a batch to fill
    max_enqueued_batches: int = 10
    # Batches of one queue that run at once. The other cores read requests and write answers; and the fewer
    # there are, the larger they are.
    num_batch_threads: int = max(1, (os.cpu_count() or 2) // 2)
    allowed_batch_sizes: Sequence[int] = ()  # to which a batch is filled up; empty: any


class Batcher:
    """Runs signatures in threads, for callers in one event loop."""

    def __init__(
        self,
        options: BatchingOptions | None,
        max_threads: int,
        metrics: Metrics,
        max_request_rows: int = 1 << 16,
    ):
        """Without options every request runs by itself."""
        self._options, self._metrics, self._max_request_rows = options, metrics, max_request_rows
        self._own_options: weakref.WeakKeyDictionary[Any, BatchingOptions | None] = (
            weakref.WeakKeyDictionary()
        )
        self._threads = futures.ThreadPoolExecutor(max_threads, thread_name_prefix="run")
        self._queues: weakref.WeakKeyDictionary[Any, dict[tuple, _Queue]] = weakref.WeakKeyDictionary()

    def use(self, servable: Any, options: BatchingOptions | None) -> None:
        """Options for one version, whatever there is for the others."""
        self._own_options[servable] = options

    async def run(self, servable: Any, signature: Any, feeds: Arrays, outputs: Sequence[str]) -> Arrays:
        """`servable.run`, awaited. If the caller is cancelled, what still waits will not run.

        Raises:
            StatusError: as `servable.run`, or UNAVAILABLE because too much waits already.
        """
        options = self._own_options.get(servable, self._options)
        rows = _batch_rows(signature, feeds)
        if rows is not None and rows > self._max_request_rows:
            raise invalid(f"The request has {rows} rows, and may have {self._max_request_rows}")
        loop = asyncio.get_running_loop()
        if options is None or rows is None:
            return await loop.run_in_executor(self._threads, servable.run, signature, feeds, outputs)
        if rows > options.max_batch_size:
            raise invalid(
                f"Task size {rows} is larger than maximum input batch size {options.max_batch_size}"
            )
        queues = self._queues.setdefault(servable, {})
        key = (signature.name, tuple(outputs), tuple((feed.dtype, feed.shape[1:]) for feed in feeds))
        queue = queues.get(key)
        if queue is None:
            run = _Run(servable, signature, outputs, options.allowed_batch_sizes, self._metrics)
            queue = queues[key] = _Queue(run, options, self._threads, lambda: queues.pop(key, None))
        return await queue.put(_Task(feeds, rows, loop.create_future()))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _batch_rows(signature: Any, feeds: Arrays) -> int | None:
    """The rows of a request that can be part of a batch; None if it cannot.

    Defaults of one row stand for all rows, as they do in the graph.
    """
    if not signature.is_batched or any(feed.ndim == 0 for feed in feeds):
        return None
    rows = {
        len(feed)
        for alias, feed in zip(signature.input_tensors, feeds, strict=True)
        if not (alias in signature.defaults and len(feed) == 1)
    } or {1}
    return rows.pop() if len(rows) == 1 and 0 not in rows else None


@dataclasses.dataclass(eq=False)
class _Task:
    feeds: Arrays
    rows: int
    result: asyncio.Future
    since: float = dataclasses.field(default_factory=time.perf_counter)


class _Queue:
    """What waits for one kind of batch. All methods are of the event loop's thread."""

    def __init__(self, run: _Run, options: BatchingOptions, threads: futures.Executor, on_idle: Any):
        self._run, self._options, self._threads, self._on_idle = run, options, threads, on_idle
        self._waiting: collections.deque[_Task] = collections.deque()
        self._rows = self._running = 0
        self._timer: asyncio.TimerHandle | None = None

    async def put(self, task: _Task) -> Arrays:
        limit = self._options.max_batch_size * self._options.max_enqueued_batches
        if self._rows + task.rows > limit:
            raise StatusError(
                grpc.StatusCode.UNAVAILABLE,
                f"The batch scheduling queue to which this task was submitted is full; "
                f"{self._rows} rows wait",
            )
        self._waiting.append(task)
        self._rows += task.rows
        self._schedule()
        try:
            return await task.result
        except asyncio.CancelledError:
            if task in self._waiting:
                self._waiting.remove(task)
                self._rows -= task.rows
            raise

    def _schedule(self, timed_out: bool = False) -> None:
        while self._waiting and self._running < self._options.num_batch_threads:
            timeout = self._options.batch_timeout_seconds
            if timeout and self._rows < self._options.max_batch_size and not timed_out:
                if self._timer is None:
                    loop = asyncio.get_running_loop()
                    self._timer = loop.call_later(timeout, self._schedule, True)
                return
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._start(self._next_batch())
        if not self._waiting and not self._running:
            self._on_idle()

    def _next_batch(self) -> list[_Task]:
        batch, rows = [], 0
        while self._waiting and rows + self._waiting[0].rows <= self._options.max_batch_size:
            batch.append(self._waiting.popleft())
            rows += batch[-1].rows
        self._rows -= rows
        return batch

    def _start(self, batch: list[_Task]) -> None:
        self._running += 1
        loop = asyncio.get_running_loop()
        running = self._threads.submit(self._run, batch)
        running.add_done_callback(
            lambda done: loop.call_soon_threadsafe(self._finish, batch, done.result())  # it never raises
        )

    def _finish(self, batch: list[_Task], results: list[Arrays | Exception]) -> None:
        self._running -= 1
        self._schedule()
        for task, result in zip(batch, results, strict=True):
            if task.result.done():  # its caller has gone
                continue
            if isinstance(result, Exception):
                task.result.set_exception(result)
            else:
                task.result.set_result(result)


@dataclasses.dataclass(frozen=True)
class _Run:
    """Runs some requests in the thread that calls."""

    servable: Any
    signature: Any
    outputs: Sequence[str]
    allowed_batch_sizes: Sequence[int]
    metrics: Metrics

    def __call__(self, batch: Sequence[_Task]) -> list[Arrays | Exception]:
        """For each request its outputs, or why there are none."""
        now = time.perf_counter()
        for task in batch:
            self.metrics.queuing_latency.observe((now - task.since) * 1e6, self.signature.name)
        self.metrics.batches.add()
        self.metrics.batch_rows.observe(sum(task.rows for task in batch))
        if len(batch) == 1 and not self.allowed_batch_sizes:
            return [self._alone(batch[0].feeds)]
        try:
            return self._together([task.feeds for task in batch], [task.rows for task in batch])
        except Exception:  # whose fault it was shows when each runs alone
            return [self._alone(task.feeds) for task in batch]

    def _alone(self, feeds: Arrays) -> Arrays | Exception:
        try:
            return self.servable.run(self.signature, feeds, self.outputs)
        except Exception as error:
            return error

    def _together(self, feeds: Sequence[Arrays], rows: Sequence[int]) -> list[Arrays | Exception]:
        total = sum(rows)
        filled = min((size for size in self.allowed_batch_sizes if size >= total), default=total)
        self.metrics.run_rows.observe(filled)
        counts = [*rows[:-1], rows[-1] + filled - total]
        columns = zip(*feeds, strict=True)
        batch = [np.concatenate(list(map(_filled, column, counts))) for column in columns]
        values = self.servable.run(self.signature, batch, self.outputs)
        if any(value.ndim == 0 or len(value) != filled for value in values):
            raise ValueError("an output has another number of rows than the inputs")
        ends = np.cumsum(rows).tolist()
        return [[value[end - count : end] for value in values] for end, count in zip(ends, rows, strict=True)]


def _filled(feed: np.ndarray, rows: int) -> np.ndarray:
    """The feed with that many rows, the last repeated as often as it takes."""
    if len(feed) == rows:
        return feed
    return np.concatenate([feed, np.repeat(feed[-1:], rows - len(feed), axis=0)])
