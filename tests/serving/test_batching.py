"""Which requests run together, and that nobody notices."""

import asyncio
import itertools
import threading
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

from serving.batching import Batcher, BatchingOptions
from serving.metrics import Metrics
from serving.rpc import StatusError, invalid

DEADLINE = 60


class Doubler:
    """A servable that doubles `x`, adds `more`, and remembers its runs; it may wait for permits."""

    def __init__(self, gated=False):
        self.permits = threading.Semaphore(0) if gated else None
        self.runs = []

    def run(self, signature, feeds, outputs):
        if self.permits:
            assert self.permits.acquire(timeout=DEADLINE)
        x, *more = feeds
        self.runs.append(x.tolist())
        if x.dtype == np.object_:
            return [np.array([each * 2 for each in x], np.object_)]
        if np.any(x < 0):
            raise invalid(f"negative: {x[x < 0].tolist()}")
        return [2 * x + sum(more)] if signature.name != "total" else [np.sum(x)]


def signature(name="double", defaults=None, is_batched=True):
    inputs = {"x": "x:0", **({alias: f"{alias}:0" for alias in defaults or {}})}
    return SimpleNamespace(name=name, input_tensors=inputs, defaults=defaults or {}, is_batched=is_batched)


def floats(*values):
    return np.array(values, np.float32)


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


def batcher(**options):
    return Batcher(BatchingOptions(num_batch_threads=1, **options), max_threads=4, metrics=Metrics())


async def gather_gated(model, requests, permits=1000):
    """The results of requests, of which the first runs alone and the others meanwhile wait."""
    tasks = [asyncio.ensure_future(request) for request in requests]
    await asyncio.sleep(0)  # all are in the queue now
    model.permits.release(permits)
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_waits_runs_together():
    async def scenario():
        model, one = Doubler(gated=True), signature()
        batches = batcher()
        requests = [batches.run(model, one, [floats(n, n + 0.5)], ["y"]) for n in range(5)]
        results = await gather_gated(model, requests)
        for n, (y,) in enumerate(results):
            np.testing.assert_array_equal(y, [2 * n, 2 * n + 1])
        assert model.runs == [[0, 0.5], [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5]]

    run(scenario)


def test_without_options_each_runs_alone():
    async def scenario():
        model = Doubler()
        alone = Batcher(None, max_threads=1, metrics=Metrics())
        await asyncio.gather(*(alone.run(model, signature(), [floats(n)], ["y"]) for n in range(5)))
        assert model.runs == [[0], [1], [2], [3], [4]]

    run(scenario)


def test_batches_are_no_larger_than_allowed():
    async def scenario():
        model, one = Doubler(gated=True), signature()
        batches = batcher(max_batch_size=4)
        sizes = (1, 3, 2, 1, 4, 1)
        await gather_gated(model, [batches.run(model, one, [floats(*[n] * n)], ["y"]) for n in sizes])
        assert [len(each) for each in model.runs] == [1, 3, 3, 4, 1]
        with pytest.raises(StatusError, match="Task size 5 is larger than maximum input batch size 4"):
            await batches.run(model, one, [floats(*range(5))], ["y"])

    run(scenario)


def test_a_bad_request_fails_alone():
    async def scenario():
        model, one = Doubler(gated=True), signature()
        batches = batcher()
        results = await gather_gated(
            model, [batches.run(model, one, [floats(n)], ["y"]) for n in (0, 1, -2, 3, -4)]
        )
        assert [result[0].tolist() for result in (results[0], results[1], results[3])] == [[0], [2], [6]]
        assert [result.message for result in (results[2], results[4])] == [
            "negative: [-2.0]",
            "negative: [-4.0]",
        ]

    run(scenario)


def test_shapes_dtypes_outputs_and_signatures_do_not_mix():
    async def scenario():
        model, one, other = Doubler(gated=True), signature(), signature("another")
        batches = batcher()
        square, wide = np.ones([1, 2], np.float32), np.ones([1, 3], np.float32)
        strings = np.array([b"ab", b""], np.object_)
        requests = [(one, square), (one, square), (one, square), (one, wide), (one, strings), (other, square)]
        results = await gather_gated(model, [batches.run(model, s, [x], ["y"]) for s, x in requests])
        assert [len(each) for each in model.runs].count(2) == 2  # the second and third, and the two strings
        assert results[4][0].tolist() == [b"abab", b""]
        for (y,), (_, x) in list(zip(results, requests, strict=True))[:4]:
            np.testing.assert_array_equal(y, 2 * x)

    run(scenario)


def test_defaults_of_one_row_stand_for_all_rows():
    async def scenario():
        model, one = Doubler(gated=True), signature(defaults={"more": floats(10)})
        batches = batcher()
        sent = [[floats(1), floats(10)], [floats(2, 3), floats(10)], [floats(4, 5), floats(20, 30)]]
        results = await gather_gated(model, [batches.run(model, one, feeds, ["y"]) for feeds in sent])
        assert [y.tolist() for (y,) in results] == [[12], [14, 16], [28, 40]]
        assert model.runs == [[1], [2, 3, 4, 5]]

    run(scenario)


@pytest.mark.parametrize(
    ("feeds", "is_batched"),
    [
        ([floats(1, 2), floats(1, 2, 3)], True),
        ([floats(1), np.float32(2)], True),
        ([floats(1), floats(2)], False),
    ],
)
def test_what_is_no_batch_runs_by_itself(feeds, is_batched):
    """Inputs of different lengths, scalars, and signatures without a batch dimension."""

    async def scenario():
        model = Doubler()
        one = signature(defaults={"more": None}, is_batched=is_batched)
        batches = batcher()
        results = await asyncio.gather(
            *(batches.run(model, one, feeds, ["y"]) for _ in range(3)), return_exceptions=True
        )
        assert len(model.runs) == 3
        assert [type(result) for result in results] == [type(results[0])] * 3

    run(scenario)


def test_outputs_that_are_no_batch_are_computed_one_by_one():
    async def scenario():
        model, one = Doubler(gated=True), signature("total")
        batches = batcher()
        results = await gather_gated(
            model, [batches.run(model, one, [floats(n, n)], ["y"]) for n in range(4)]
        )
        assert [float(total) for (total,) in results] == [0, 2, 4, 6]

    run(scenario)


def test_a_full_queue_says_unavailable():
    async def scenario():
        model, one = Doubler(gated=True), signature()
        batches = batcher(max_batch_size=2, max_enqueued_batches=2)
        results = await gather_gated(model, [batches.run(model, one, [floats(n)], ["y"]) for n in range(7)])
        refused = [result for result in results if isinstance(result, StatusError)]
        assert [error.code for error in refused] == [grpc.StatusCode.UNAVAILABLE] * 2
        assert "The batch scheduling queue to which this task was submitted is full" in refused[0].message
        assert sorted(itertools.chain.from_iterable(model.runs)) == [0, 1, 2, 3, 4]

    run(scenario)


def test_who_is_cancelled_in_the_queue_does_not_run():
    async def scenario():
        model, one = Doubler(gated=True), signature()
        batches = batcher(max_batch_size=2, max_enqueued_batches=1)
        tasks = [asyncio.ensure_future(batches.run(model, one, [floats(n)], ["y"])) for n in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        tasks.append(
            asyncio.ensure_future(batches.run(model, one, [floats(9)], ["y"]))
        )  # there is room again
        await asyncio.sleep(0)
        model.permits.release(1000)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[1], asyncio.CancelledError)
        assert model.runs == [[0], [2, 9]]

    run(scenario)


def test_who_is_cancelled_while_running_harms_nobody():
    async def scenario():
        model, one = Doubler(gated=True), signature()
        batches = batcher()
        tasks = [asyncio.ensure_future(batches.run(model, one, [floats(n)], ["y"])) for n in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        model.permits.release(1000)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [result[0].tolist() for result in results[1:]] == [[2], [4]]

    run(scenario)


def test_a_batch_may_wait_to_be_filled():
    async def scenario():
        model, one = Doubler(), signature()
        batches = batcher(max_batch_size=3, batch_timeout_seconds=DEADLINE)
        tasks = [asyncio.ensure_future(batches.run(model, one, [floats(n)], ["y"])) for n in range(2)]
        await asyncio.sleep(0)
        assert not model.runs
        tasks.append(asyncio.ensure_future(batches.run(model, one, [floats(2)], ["y"])))
        await asyncio.gather(*tasks)
        assert model.runs == [[0, 1, 2]]

    run(scenario)


def test_a_batch_that_does_not_fill_runs_after_the_timeout():
    async def scenario():
        model = Doubler()
        batches = batcher(max_batch_size=3, batch_timeout_seconds=0.001)
        await batches.run(model, signature(), [floats(1)], ["y"])
        assert model.runs == [[1]]

    run(scenario)


def test_a_batch_is_filled_up_to_an_allowed_size():
    async def scenario():
        model, one = Doubler(gated=True), signature()
        batches = batcher(max_batch_size=8, allowed_batch_sizes=(4, 8))
        results = await gather_gated(
            model, [batches.run(model, one, [floats(n, n)], ["y"]) for n in range(4)]
        )
        assert [len(each) for each in model.runs] == [4, 8]
        assert [y.tolist() for (y,) in results] == [[0, 0], [2, 2], [4, 4], [6, 6]]

    run(scenario)


def test_queues_are_forgotten_when_idle():
    async def scenario():
        model, batches = Doubler(), batcher()
        for width in range(1, 5):
            await batches.run(model, signature(), [np.ones([1, width], np.float32)], ["y"])
        assert not batches._queues[model]

    run(scenario)
