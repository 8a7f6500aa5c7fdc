"""Load for a model server, and how it bears it.

In the closed loop each of so many callers asks again as soon as it is answered. In the open loop requests are
sent at random times of a given rate, whether the earlier ones are answered or not; latency counts from the
time when one was due, so that requests held up behind others show as slow, and are not left out.

Where the load shares a machine with what it measures it has to be cheap: a request is serialized once, and of
responses only those of streams are parsed, to count their tokens. One channel is enough: with 32 callers four
or eight were no faster.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import random
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeAlias

import grpc.aio
import numpy as np

from serving.calls import Call
from serving.connection import Connection

_OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)  # or all channels would share one


@dataclasses.dataclass(frozen=True)
class LoadResult:
    """What was measured. Latencies are of answered requests, None if there are none."""

    seconds: float
    requests: int  # answered within these seconds
    requests_per_second: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    errors: Mapping[str, int]  # by code
    tokens_per_second: float | None = None  # this and what follows: of streams
    first_token_p50_ms: float | None = None
    first_token_p99_ms: float | None = None


class Record:
    """What becomes of the requests of a time window. Times are in seconds, of the event loop's clock."""

    def __init__(self, begin: float, seconds: float):
        self.begin, self.end = begin, begin + seconds
        self.answered = 0  # within the window, whenever they were sent
        self._tokens = 0  # that came within the window
        self._latencies: list[float] = []  # of those sent within the window, whenever they were answered
        self._first_tokens: list[float] = []
        self._errors: collections.Counter[str] = collections.Counter()

    def answer(self, due: float, now: float) -> None:
        """A request that was due then has been answered."""
        self.answered += self._has(now)
        if self._has(due):
            self._latencies.append(now - due)

    def error(self, due: float, code: str) -> None:
        """It has failed."""
        self._errors[code] += self._has(due)

    def tokens(self, due: float, now: float, count: int, are_first: bool) -> None:
        """So many tokens of its answer have come."""
        if self._has(now):
            self._tokens += count
        if are_first and self._has(due):
            self._first_tokens.append(now - due)

    def _has(self, moment: float) -> bool:
        return self.begin <= moment < self.end

    def result(self, streams: bool = False) -> LoadResult:
        """All of it."""
        seconds = self.end - self.begin
        p50, p90, p99, largest = _milliseconds(self._latencies, (50, 90, 99, 100))
        result = LoadResult(
            seconds, self.answered, self.answered / seconds, p50, p90, p99, largest, dict(+self._errors)
        )
        if not streams:
            return result
        first_p50, first_p99 = _milliseconds(self._first_tokens, (50, 99))
        return dataclasses.replace(
            result,
            tokens_per_second=self._tokens / seconds,
            first_token_p50_ms=first_p50,
            first_token_p99_ms=first_p99,
        )


def _milliseconds(seconds: Sequence[float], percentiles: Sequence[float]) -> list[float | None]:
    if not seconds:
        return [None] * len(percentiles)
    return [float(value) for value in np.percentile(seconds, percentiles) * 1e3]


Send: TypeAlias = Callable[[Record, float], Awaitable[None]]  # sends a request that is due at that time
Progress: TypeAlias = Callable[[float, int], None]  # is told each second how many were answered since when


def closed_loop(
    connection: Connection,
    call: Call[Any],
    *,
    callers: int,
    seconds: float,
    channels: int = 1,
    warm_up_s: float = 1.0,
    progress: Progress = lambda *_: None,
) -> LoadResult:
    """So many callers, each with one request under way. No request is tried again."""

    async def load(sends: Sequence[Send], record: Record) -> None:
        await ask_in_turn(sends, record, callers)

    return _run(_measured(connection, call, channels, warm_up_s, seconds, load, progress))


def open_loop(
    connection: Connection,
    call: Call[Any],
    *,
    rate: float,
    seconds: float,
    channels: int = 1,
    warm_up_s: float = 1.0,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> LoadResult:
    """So many requests per second at random (Poisson arrivals). No request is tried again."""

    async def load(sends: Sequence[Send], record: Record) -> None:
        await ask_at_random(sends, record, rate, random.Random(seed))

    return _run(_measured(connection, call, channels, warm_up_s, seconds, load, progress))


async def ask_in_turn(sends: Sequence[Send], record: Record, callers: int) -> None:
    """The closed loop, from now to the end of the record; waits for what is under way then."""
    clock = asyncio.get_running_loop().time

    async def caller(send: Send) -> None:
        now = clock()
        while now < record.end:
            await _ask(send, record, now)
            now = clock()

    await asyncio.gather(*(caller(send) for send in itertools.islice(itertools.cycle(sends), callers)))


async def ask_at_random(sends: Sequence[Send], record: Record, rate: float, draw: random.Random) -> None:
    """The open loop, from now to the end of the record; waits for what is under way then."""
    clock = asyncio.get_running_loop().time
    under_way: set[asyncio.Task[None]] = set()
    due = clock() + draw.expovariate(rate)
    for send in itertools.cycle(sends):
        if due >= record.end:
            break
        await asyncio.sleep(max(0.0, due - clock()))
        task = asyncio.create_task(_ask(send, record, due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        due += draw.expovariate(rate)
    await asyncio.gather(*under_way)


async def _ask(send: Send, record: Record, due: float) -> None:
    try:
        await send(record, due)
    except grpc.aio.AioRpcError as error:
        record.error(due, error.code().name)
    else:
        record.answer(due, asyncio.get_running_loop().time())


async def _measured(
    connection: Connection,
    call: Call[Any],
    channels: int,
    warm_up_s: float,
    seconds: float,
    load: Callable[[Sequence[Send], Record], Awaitable[None]],
    progress: Progress,
) -> LoadResult:
    async with contextlib.AsyncExitStack() as stack:
        connection = dataclasses.replace(connection, retries=0)
        opened = [connection.channel(grpc.aio, [_OWN_CONNECTION]) for _ in range(channels)]
        for channel in opened:
            stack.push_async_callback(channel.close)
        sends = [_sender(channel, connection, call) for channel in opened]
        record = Record(asyncio.get_running_loop().time() + warm_up_s, seconds)
        reporting = asyncio.create_task(_report(record, progress))
        stack.callback(reporting.cancel)
        await load(sends, record)
        return record.result(call.rpc.streams)


async def _report(record: Record, progress: Progress) -> None:
    clock = asyncio.get_running_loop().time
    for second in itertools.count(1):
        await asyncio.sleep(record.begin + second - clock())
        progress(second, record.answered)


def _sender(channel: grpc.aio.Channel, connection: Connection, call: Call[Any]) -> Send:
    body = call.request.SerializeToString()
    options: dict[str, Any] = {"timeout": connection.timeout_s, "metadata": connection.metadata}
    if not call.rpc.streams:
        ask: Any = channel.unary_unary(call.rpc.path)

        async def send(record: Record, due: float) -> None:
            await ask(body, **options)

        return send
    receive: Any = channel.unary_stream(call.rpc.path, response_deserializer=call.rpc.response.FromString)
    clock = asyncio.get_running_loop().time

    async def send_and_receive(record: Record, due: float) -> None:
        are_first = True
        async for response in receive(body, **options):
            record.tokens(due, clock(), len(response.outputs["token"].string_val), are_first)
            are_first = False

    return send_and_receive


def _run(measured: Coroutine[Any, Any, LoadResult]) -> LoadResult:
    # epoll would wake up to a millisecond late, and requests would not be sent when they are due.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    task = loop.create_task(measured)
    try:
        return loop.run_until_complete(task)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            loop.run_until_complete(task)
        loop.close()
