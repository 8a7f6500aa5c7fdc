"""Continuous batching, with a model that counts: who shares which step, and what each reader gets."""

import asyncio
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from serving.streaming import Engine, Stream

DEADLINE = 60


class Counter:
    """A servable whose state is a number; a step adds one, gives the number as token, and ends at `end`.

    Steps wait for permits, if it was made with `gated`; `batches` has the states of each step.
    """

    def __init__(self, end=10**9, gated=False):
        settings = {"seed": np.array([[-1, -1]], np.int32), "temperature": np.ones(1, np.float32)}
        inputs = {"seed": "seed:0", "state": "state:0", "temperature": "temperature:0"}
        self.signatures = {"step": SimpleNamespace(name="step", input_tensors=inputs, defaults=settings)}
        self.end = end
        self.permits = threading.Semaphore(0) if gated else None
        self.batches, self.seeds = [], []

    def run(self, signature, feeds, outputs):
        if self.permits:
            assert self.permits.acquire(timeout=DEADLINE)
        given = dict(zip(signature.input_tensors, feeds, strict=True))
        state = given["state"]
        self.batches.append(state[:, 0].astype(int).tolist())
        self.seeds.append(given["seed"].tolist())
        if np.any(given["temperature"] < 0):
            raise ValueError("temperature must be positive")
        number = state[:, 0].astype(np.int32)
        values = {
            "done": number >= self.end,
            "log_prob": -state[:, 0],
            "state": state + 1,
            "token": np.array([b"%d" % n for n in number], np.object_),
            "token_id": number,
        }
        return [values[alias] for alias in outputs]


def stream(first=0, limit=10**6, **settings):
    return Stream(np.full([1, 3], first, np.float32), settings, limit)


async def read(one, count=1):
    taken = []
    while tokens := await one.take(count):
        taken += tokens
    return taken


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


def test_a_text_is_written_to_its_end():
    async def scenario():
        model = Counter(end=7)
        one = stream(first=3)
        Engine(model, asyncio.get_running_loop()).join(one)
        tokens = await read(one)
        assert [(token.text, token.id, token.done) for token in tokens] == [
            (b"3", 3, False), (b"4", 4, False), (b"5", 5, False), (b"6", 6, False), (b"7", 7, True),
        ]  # fmt: skip
        assert [token.log_prob for token in tokens] == [-3, -4, -5, -6, -7]
        assert len(model.batches) == 5

    run(scenario)


@pytest.mark.parametrize(
    ("limit", "count", "sizes"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 8, [2]), (0, 1, [])]
)
def test_tokens_come_in_the_number_asked_for(limit, count, sizes):
    async def scenario():
        one = stream(limit=limit)
        if limit:
            Engine(Counter(), asyncio.get_running_loop()).join(one)
        taken = []
        while tokens := await one.take(count):
            taken.append(len(tokens))
        assert taken == sizes

    run(scenario)


def test_streams_join_and_leave_between_steps():
    async def scenario():
        model = Counter(gated=True)
        engine = Engine(model, asyncio.get_running_loop())
        first, second, third = stream(0, limit=8), stream(100, limit=2), stream(200)
        engine.join(first)
        model.permits.release()
        assert (await first.take(1))[0].id == 0
        engine.join(second)
        engine.join(third)
        # The second step may have begun with `first` alone already; from the third on all are in it.
        model.permits.release(2)
        assert (await second.take(1))[0].id == 100
        third.closed = True
        model.permits.release(8)
        assert [token.id for token in await read(first)] == [1, 2, 3, 4, 5, 6, 7]
        assert [token.id for token in await read(second)] == [101]
        shared = [sorted(batch) for batch in model.batches if len(batch) > 1]
        assert shared[0] in ([1, 100, 200], [2, 100, 200])
        # Both steps that were let through may have had the third, and the one that was waiting then.
        assert sum(max(batch) >= 200 for batch in model.batches) <= 3
        assert [batch[0] for batch in model.batches if batch[0] < 100] == list(range(8))

    run(scenario)


def test_many_streams_share_their_steps():
    async def scenario():
        model = Counter(gated=True)
        engine = Engine(model, asyncio.get_running_loop())
        streams = [stream(1000 * n, limit=5) for n in range(20)]
        for one in streams:
            engine.join(one)
        model.permits.release(1000)
        for n, tokens in enumerate(await asyncio.gather(*map(read, streams))):
            assert [token.id for token in tokens] == list(range(1000 * n, 1000 * n + 5))
        assert len(model.batches) <= 6  # the first step may have begun when only the first was there

    run(scenario)


def test_a_slow_reader_is_set_aside_and_comes_back():
    async def scenario():
        model = Counter()
        engine = Engine(model, asyncio.get_running_loop())
        slow, quick = stream(0), stream(10**6, limit=1000)
        engine.join(slow)
        engine.join(quick)
        assert len(await read(quick)) == 1000
        ahead = max(batch[0] for batch in model.batches if batch[0] < 10**6)
        assert ahead == 63  # 64 tokens, from 0
        ids = []
        while len(ids) < 500:
            ids += [token.id for token in await slow.take(1)]
        assert ids == list(range(500))
        slow.closed = True

    run(scenario)


def test_messages_larger_than_a_reader_may_lag():
    async def scenario():
        one = stream(limit=500)
        Engine(Counter(), asyncio.get_running_loop()).join(one)
        assert [len(await one.take(200)) for _ in range(4)] == [200, 200, 100, 0]

    run(scenario)


def test_a_bad_stream_fails_alone():
    async def scenario():
        model = Counter(gated=True)
        engine = Engine(model, asyncio.get_running_loop())
        good = [stream(first, limit=20) for first in (0, 100, 200)]
        bad = stream(300, temperature=np.full(1, -1, np.float32))
        for one in (*good, bad):
            engine.join(one)
        model.permits.release(1000)
        *texts, error = await asyncio.gather(*map(read, (*good, bad)), return_exceptions=True)
        assert [[token.id for token in text] for text in texts] == [
            list(range(first, first + 20)) for first in (0, 100, 200)
        ]
        assert isinstance(error, ValueError)

    run(scenario)


def test_a_seed_moves_on_with_each_token():
    async def scenario():
        model = Counter()
        engine = Engine(model, asyncio.get_running_loop())
        seeded = stream(limit=3, seed=np.array([[7, 40]], np.int32))
        engine.join(seeded)
        await read(seeded)
        assert model.seeds == [[[7, 40]], [[7, 41]], [[7, 42]]]
        fresh = stream(limit=2)
        engine.join(fresh)
        await read(fresh)
        assert model.seeds[3:] == [[[-1, -1]], [[-1, -1]]]

    run(scenario)


def test_the_thread_ends_when_there_is_nothing_to_write():
    async def scenario():
        engine = Engine(Counter(), asyncio.get_running_loop())
        for _ in range(3):
            one = stream(limit=5)
            engine.join(one)
            assert len(await read(one)) == 5
            for thread in threading.enumerate():
                if thread.name == "generation":
                    await asyncio.to_thread(thread.join, DEADLINE)
            assert not [t for t in threading.enumerate() if t.name == "generation"]

    run(scenario)


def test_a_loop_that_is_closed_during_a_step(monkeypatch):
    """As at a server's end: the thread has nobody to give its tokens to, and ends without a word."""
    uncaught = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)
    model = Counter(gated=True)
    one = stream(limit=2)

    async def scenario():
        Engine(model, asyncio.get_running_loop()).join(one)
        model.permits.release()
        await one.take(1)

    run(scenario)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "generation"]
    model.permits.release()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert uncaught == []
