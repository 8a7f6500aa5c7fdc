"""Load: what is measured, in virtual time; and over real sockets, what is sent."""

from __future__ import annotations

import asyncio
import itertools
import random
import selectors
import threading

import grpc
import numpy as np
import pytest
from grpc_stub import DEADLINE, GENERATE, PREDICT, Stub, answering

from serving import bench
from serving.bench import Record
from serving.calls import model_spec
from serving.connection import Connection
from serving.generation_calls import stream
from serving.task_calls import embed

UNAVAILABLE = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())


class VirtualTime(asyncio.SelectorEventLoop):
    """Sleeps at once, and has its clock say that it has slept."""

    def __init__(self):
        super().__init__(_Selector(self))
        self.now = 0.0

    def time(self):
        return self.now


class _Selector(selectors.SelectSelector):
    def __init__(self, loop):
        super().__init__()
        self._loop = loop

    def select(self, timeout=None):
        assert timeout is not None, "nothing is left to wait for"
        self._loop.now += timeout
        return super().select(0)


def in_virtual_time(load, record):
    """The record after a load of it."""
    loop = VirtualTime()
    try:
        loop.run_until_complete(load(record))
    finally:
        loop.close()
    return record


def taking(seconds):
    """Sends requests that take so long, one after the other."""
    times = iter(seconds)

    async def send(record, due):
        await asyncio.sleep(next(times))

    return send


def test_percentiles_of_one_caller():
    """101 requests of 0 to 100 ms, in an order of their own."""
    milliseconds = random.Random(5).sample(range(101), 101)
    send = taking(number / 1e3 for number in milliseconds)
    record = in_virtual_time(lambda record: bench.ask_in_turn([send], record, 1), Record(0, 5.05))
    result = record.result()
    assert (result.p50_ms, result.p90_ms, result.p99_ms, result.max_ms) == pytest.approx((50, 90, 99, 100))
    assert (result.seconds, result.requests_per_second) == (5.05, pytest.approx(result.requests / 5.05))
    assert result.requests in (100, 101)  # the last ends with the window
    assert (result.errors, result.tokens_per_second, result.first_token_p50_ms) == ({}, None, None)


def test_callers_wait_for_their_own_answers_only():
    sends = [taking(itertools.repeat(seconds)) for seconds in (0.125, 0.5)]
    record = in_virtual_time(lambda record: bench.ask_in_turn(sends, record, 4), Record(0, 4))
    result = record.result()
    # Two callers send 32 requests each, two 8 each; the last of each is answered at the very end.
    assert (result.requests, result.max_ms, result.p50_ms) == (2 * 31 + 2 * 7, 500, 125)


def test_what_comes_before_the_window_does_not_count():
    send = taking(itertools.chain([0.75, 0.25], itertools.repeat(0.125)))
    record = in_virtual_time(lambda record: bench.ask_in_turn([send], record, 1), Record(1, 2))
    result = record.result()
    assert (result.max_ms, result.p50_ms) == (125, 125)
    assert result.requests == 16  # one that ends as the window begins, and none that ends with it


def test_what_is_slow_at_the_end_counts():
    """It does not hold up the others' figures, but is waited for."""
    send = taking([0.5, 100])
    record = in_virtual_time(lambda record: bench.ask_in_turn([send], record, 1), Record(0, 1))
    result = record.result()
    assert (result.requests, result.max_ms) == (1, 100_000)


def arrivals(rate, seconds, seed):
    """When requests are due."""
    draw = random.Random(seed)
    gaps = (draw.expovariate(rate) for _ in itertools.count())
    return list(itertools.takewhile(lambda due: due < seconds, itertools.accumulate(gaps)))


def test_an_open_loop_sends_at_random_whatever_is_under_way():
    sent = []

    async def send(record, due):
        sent.append((due, asyncio.get_running_loop().time()))
        await asyncio.sleep(1000)

    draw = random.Random(7)
    record = in_virtual_time(lambda record: bench.ask_at_random([send], record, 100, draw), Record(0, 20))
    due, moments = zip(*sent, strict=True)
    assert list(due) == pytest.approx(arrivals(100, 20, seed=7))
    assert moments == pytest.approx(due)
    assert len(sent) == pytest.approx(2000, abs=3 * 2000**0.5)
    gaps = np.diff(due)
    assert (gaps.mean(), gaps.std()) == pytest.approx((0.01, 0.01), rel=0.1)
    assert np.mean(gaps > 0.02) == pytest.approx(np.exp(-2), rel=0.1)  # as of an exponential distribution
    assert record.result().p50_ms == pytest.approx(1e6)


def test_latency_counts_from_when_a_request_was_due():
    """A server that takes 5 ms for each, one after the other, and at the 100th stalls for a second."""
    times = [0.005] * 10_000
    times[100] = 1.0
    due = arrivals(100, 10, seed=3)
    expected, free = [], 0.0
    for moment, seconds in zip(due, times, strict=False):
        free = max(free, moment) + seconds
        expected.append(free - moment)

    async def load(record):
        turn, durations = asyncio.Lock(), iter(times)

        async def send(record, due):
            async with turn:
                await asyncio.sleep(next(durations))

        await bench.ask_at_random([send], record, 100, random.Random(3))

    result = in_virtual_time(load, Record(0, 10)).result()
    measured = (result.p50_ms, result.p90_ms, result.p99_ms, result.max_ms)
    assert measured == pytest.approx(np.percentile(expected, (50, 90, 99, 100)) * 1e3)
    assert result.p90_ms > 100  # where the stall itself is one request in a thousand


def test_requests_are_spread_over_channels():
    counts = [0, 0, 0]

    def counting(channel):
        async def send(record, due):
            counts[channel] += 1

        return send

    sends = [counting(channel) for channel in range(3)]
    draw = random.Random(1)
    in_virtual_time(lambda record: bench.ask_at_random(sends, record, 10, draw), Record(0, 10))
    assert sum(counts) == len(arrivals(10, 10, seed=1))
    assert max(counts) - min(counts) <= 1


def test_errors_are_counted_and_are_no_answers():
    async def send(record, due):
        await asyncio.sleep(0.5)
        if due >= 1:
            raise UNAVAILABLE

    result = in_virtual_time(lambda record: bench.ask_in_turn([send], record, 1), Record(0.5, 2)).result()
    assert (result.requests, result.errors, result.max_ms) == (2, {"UNAVAILABLE": 3}, 500)


def test_nothing_but_errors():
    async def send(record, due):
        await asyncio.sleep(0.5)
        raise UNAVAILABLE

    result = in_virtual_time(lambda record: bench.ask_in_turn([send], record, 1), Record(0, 2)).result(True)
    assert (result.requests, result.errors, result.p50_ms) == (0, {"UNAVAILABLE": 4}, None)
    assert (result.tokens_per_second, result.first_token_p99_ms) == (0, None)


def test_tokens_and_the_time_to_the_first():
    """Streams of 4 tokens, two a message, a quarter of a second apart, the first after half a second."""

    async def send(record, due):
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(0.5)
        record.tokens(due, clock(), 2, are_first=True)
        await asyncio.sleep(0.25)
        record.tokens(due, clock(), 2, are_first=False)

    record = in_virtual_time(lambda record: bench.ask_in_turn([send], record, 2), Record(0, 3))
    result = record.result(streams=True)
    assert (result.tokens_per_second, result.first_token_p50_ms, result.first_token_p99_ms) == (
        pytest.approx((4 * 4 - 2) * 2 / 3),  # the last two come as the window ends
        500,
        500,
    )
    assert (result.max_ms, result.requests) == (750, 6)


@pytest.fixture
def embedding_server():
    """Answers; the first three not before all of them have been asked."""
    barrier, count = threading.Barrier(3), itertools.count()
    response = answering(embedding=np.zeros([1, 2], np.float32))

    def answer(body, _):
        if next(count) < 3:
            barrier.wait(DEADLINE)
        return response

    with Stub({PREDICT: answer}) as stub:
        yield stub


def test_a_closed_loop_over_sockets(embedding_server):
    seen = []
    result = bench.closed_loop(
        Connection(embedding_server.address, bearer_token="a"),
        embed(model_spec("model"), "a"),
        callers=3,
        seconds=1.5,
        channels=2,
        warm_up_s=0.1,
        progress=lambda seconds, answered: seen.append((seconds, answered)),
    )
    assert 0 < result.requests <= len(embedding_server.calls)
    assert (result.errors, result.seconds, result.tokens_per_second) == ({}, pytest.approx(1.5), None)
    assert 0 < result.p50_ms <= result.p90_ms <= result.p99_ms <= result.max_ms
    assert {each["authorization"] for each in embedding_server.metadata} == {"Bearer a"}
    assert seen[0][0] == 1
    assert 0 < seen[0][1] <= len(embedding_server.calls)


def test_an_open_loop_of_streams_over_sockets():
    def generate(body, _):
        for count in (2, 1):
            yield answering(token=["a"] * count)

    with Stub({GENERATE: generate}) as stub:
        call = stream(model_spec("model"), "a")
        result = bench.open_loop(Connection(stub.address), call, rate=25, seconds=2, warm_up_s=0, seed=4)
    assert 0 < result.requests <= len(stub.calls) <= len(arrivals(25, 2, seed=4))
    assert result.errors == {}
    assert 0 < result.first_token_p50_ms <= result.p50_ms
    assert 3 * result.requests <= round(result.tokens_per_second * 2) <= 3 * len(stub.calls)


def test_no_request_is_tried_again():
    def refuse(_, context):
        context.abort(grpc.StatusCode.UNAVAILABLE, "full")

    with Stub({PREDICT: refuse}) as stub:
        call = embed(model_spec("model"), "a")
        result = bench.open_loop(Connection(stub.address), call, rate=20, seconds=1, warm_up_s=0)
    assert result.errors == {"UNAVAILABLE": len(stub.calls)}
    assert result.requests == 0
