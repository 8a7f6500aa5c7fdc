"""Counts and latencies under the stock server's Prometheus names.

The stock server's text (util/prometheus_exporter.cc) has no HELP lines and no `_total` behind a counter's
name, which client libraries would add; so it is written here.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import grpc

_PREFIX = ":tensorflow:serving:"
_LATENCY_BUCKETS = [10 * 1.8**power for power in range(33)]  # microseconds
_SIZE_BUCKETS = [2.0**power for power in range(15)]


class Counter:
    """A number for each combination of labels, that only grows."""

    KIND = "counter"

    def __init__(self, name: str, labels: Sequence[str]):
        self.name, self.labels = name, labels
        self._values: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, amount: float = 1) -> None:
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + amount

    def samples(self) -> Iterator[tuple[str, Mapping[str, str], float]]:
        """Suffix of the name, labels and value of each line."""
        with self._lock:
            values = list(self._values.items())
        for labels, value in values:
            yield "", dict(zip(self.labels, labels, strict=True)), value


class Histogram:
    """How often values fell into each bucket, for each combination of labels."""

    KIND = "histogram"

    def __init__(self, name: str, labels: Sequence[str], buckets: Sequence[float] = _LATENCY_BUCKETS):
        self.name, self.labels = name, labels
        self._buckets = buckets  # their upper limits
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def observe(self, value: float, *labels: str) -> None:
        with self._lock:
            counts = self._counts.setdefault(labels, [0] * (len(self._buckets) + 1))
            counts[bisect.bisect_left(self._buckets, value)] += 1
            self._sums[labels] = self._sums.get(labels, 0) + value

    def samples(self) -> Iterator[tuple[str, Mapping[str, str], float]]:
        """As `Counter.samples`; the counts of buckets include those below."""
        with self._lock:
            series = [(labels, list(counts), self._sums[labels]) for labels, counts in self._counts.items()]
        limits = [*map(_number, self._buckets), "+Inf"]
        for labels, counts, total in series:
            named = dict(zip(self.labels, labels, strict=True))
            for limit, count in zip(limits, itertools.accumulate(counts), strict=True):
                yield "_bucket", {**named, "le": limit}, count
            yield "_sum", named, total
            yield "_count", named, sum(counts)


class Metrics:
    """All that the server counts.

    What callers make up becomes no label, or the text would grow with each name that they try: a model that
    `model_names` does not give counts as "".
    """

    def __init__(self, model_names: Callable[[], Collection[str]] = tuple) -> None:
        self._model_names = model_names
        self.requests = Counter(_PREFIX + "request_count", ["model_name", "status"])
        self.request_latency = Histogram(_PREFIX + "request_latency", ["model_name", "API", "entrypoint"])
        self.runtime_latency = Histogram(_PREFIX + "runtime_latency", ["model_name", "API", "runtime"])
        self.example_counts = Histogram(_PREFIX + "request_example_counts", ["model"], _SIZE_BUCKETS)
        self.examples = Counter(_PREFIX + "request_example_count_total", ["model"])
        self.warmup_latency = Histogram(_PREFIX + "model_warmup_latency", ["model_path", "status"])
        self.warmup_records = Counter(_PREFIX + "model_warmup_records_read", ["model_path", "status"])
        self.queuing_latency = Histogram(_PREFIX + "batching_session:queuing_latency", ["thread_pool_name"])
        self.batches = Counter(_PREFIX + "batching_session:wrapped_run_count", [])
        self.batch_rows = Histogram(_PREFIX + "batching_session:input_batch_size", [], _SIZE_BUCKETS)
        self.run_rows = Histogram(_PREFIX + "batching_session:processed_batch_size", [], _SIZE_BUCKETS)
        self.tokens = Counter(":rnn_zoo:serving:generated_tokens", ["model_name"])
        self.live_streams: Callable[[], int] = lambda: 0

    def observer(self, entrypoint: str) -> Callable[[str, Any, grpc.StatusCode, float], None]:
        """What serving.rpc tells of each call, for calls that come in over GRPC or REST."""

        def observe(method: str, request: Any, code: grpc.StatusCode, seconds: float) -> None:
            model = _model_name(request)
            if model not in self._model_names():
                model = ""
            self.requests.add(model, code.name)
            if code is grpc.StatusCode.OK:
                api = method if entrypoint == "GRPC" else method.lower()
                self.request_latency.observe(seconds * 1e6, model, api, entrypoint)

        return observe

    def warmed_up(self, path: str, status: str, seconds: float, records: int) -> None:
        """What a warm-up tells of itself when it has ended."""
        self.warmup_latency.observe(seconds * 1e6, path, status)
        self.warmup_records.add(path, status, amount=records)

    def text(self) -> bytes:
        """The Prometheus exposition."""
        lines = []
        for metric in vars(self).values():
            if isinstance(metric, (Counter, Histogram)):
                lines.append(f"# TYPE {metric.name} {metric.KIND}")
                lines += [
                    _line(metric.name + suffix, labels, value) for suffix, labels, value in metric.samples()
                ]
        lines.append("# TYPE :rnn_zoo:serving:live_streams gauge")
        lines.append(_line(":rnn_zoo:serving:live_streams", {}, self.live_streams()))
        return ("\n".join(lines) + "\n").encode()


def _model_name(request: Any) -> str:
    """Of a request of any kind; empty where it names none, or could not be read."""
    tasks = getattr(request, "tasks", None)
    return getattr(getattr(tasks[0] if tasks else request, "model_spec", None), "name", "")


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{pairs}}} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
