"""Continuous batching: all texts that are being written share each step of the language model.

What a text needs to go on is its state, a row of a few kilobytes. A thread for each version takes the
signature `step` over the rows of all live streams at once, again and again; between two steps new streams
join and finished ones leave. A stream whose reader is slow is set aside until the reader has caught up, and
holds up nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_OUTPUTS = ("done", "log_prob", "state", "token", "token_id")
_AHEAD = 64  # tokens that a stream may be ahead of its reader


class Token(NamedTuple):
    """One step of a text. The bytes of a token need not be whole characters."""

    text: bytes
    id: int
    log_prob: float  # nats
    done: bool


class Stream:
    """One text being written. All but `is_ahead`, `row` and `took` is of the event loop's thread."""

    def __init__(self, state: np.ndarray, settings: Mapping[str, np.ndarray], max_new_tokens: int):
        """`state` [1, size] is what `start` gave; `settings`, of one row, are further inputs of `step`."""
        self.state = state
        self.steps = 0
        self.left = max_new_tokens
        self.closed = False
        self.resume: Callable[[Stream], None] = lambda _: None
        self._settings = settings
        self._tokens: list[Token] = []
        self._error: Exception | None = None
        self._ended = max_new_tokens == 0
        self._paused = False
        self._wanted = 1
        self._taken = 0
        self._arrived = asyncio.Event()

    def row(self, alias: str, default: np.ndarray) -> np.ndarray:
        """Its row of an input of the next step. A seed (a, b) draws the i-th token with (a, b + i)."""
        value = self._settings.get(alias, default)
        return (
            value + np.array([0, self.steps], value.dtype) if alias == "seed" and value[0, 0] >= 0 else value
        )

    def took(self, state: np.ndarray, done: bool) -> bool:
        """Note a step, and the state after it; True if it was the last."""
        self.state = state
        self.left -= 1
        self.steps += 1
        return done or self.left == 0

    @property
    def is_ahead(self) -> bool:
        """Whether its reader has to catch up first."""
        return self.steps - self._taken >= max(_AHEAD, self._wanted)

    @property
    def is_over(self) -> bool:
        """Whether the last token has been taken."""
        return self._ended and not self._tokens

    def put(self, token: Token, ended: bool) -> None:
        """The next token has come."""
        self._tokens.append(token)
        self._ended = ended
        if ended or len(self._tokens) >= self._wanted:
            self._arrived.set()

    def fail(self, error: Exception) -> None:
        """There will be no further token."""
        self._error, self._ended = error, True
        self._arrived.set()

    def pause(self) -> None:
        """It was left out of the steps because it was ahead; the reader may have caught up since."""
        self._paused = True
        self._resume_unless_ahead()

    async def take(self, count: int) -> list[Token]:
        """The next `count` tokens, at the end fewer, after it none. Raises what went wrong."""
        self._wanted = count
        while len(self._tokens) < count and not self._ended:
            self._arrived.clear()
            self._resume_unless_ahead()
            await self._arrived.wait()
        taken, self._tokens = self._tokens[:count], self._tokens[count:]
        self._taken += len(taken)
        if self._error is not None and not taken:
            raise self._error
        self._resume_unless_ahead()
        return taken

    def _resume_unless_ahead(self) -> None:
        if self._paused and not self.is_ahead:
            self._paused = False
            self.resume(self)


class Engine:
    """Steps all streams of one version together, in a thread of its own while there are any."""

    def __init__(self, servable: Any, loop: asyncio.AbstractEventLoop):
        self._servable, self._loop = servable, loop
        self._signature = servable.signatures["step"]
        self._lock = threading.Lock()
        self._joining: list[Stream] = []
        self._is_working = False

    def join(self, stream: Stream) -> None:
        """The stream takes part from the next step on, until it ends or is closed."""
        stream.resume = self.join
        with self._lock:
            self._joining.append(stream)
            if not self._is_working:
                self._is_working = True
                threading.Thread(target=self._work, name="generation", daemon=True).start()

    def _work(self) -> None:
        live: list[Stream] = []
        while live := self._members(live):
            live = self._step_all(live)

    def _members(self, live: Sequence[Stream]) -> list[Stream]:
        """Who takes part in the next step; if nobody, the thread ends."""
        ahead = {stream for stream in live if stream.is_ahead}
        for stream in ahead:
            self._tell(stream.pause)
        with self._lock:
            candidates = [*(stream for stream in live if stream not in ahead), *self._joining]
            self._joining.clear()
            members = [stream for stream in candidates if not stream.closed]
            self._is_working = bool(members)
            return members

    def _step_all(self, live: Sequence[Stream]) -> list[Stream]:
        """One step; those who go on. If it fails, each takes it by itself, to see whose fault it was."""
        try:
            tokens, states = self._run(live)
        except Exception as error:
            if len(live) > 1:
                return [stream for each in live for stream in self._step_all([each])]
            self._tell(live[0].fail, error)
            return []
        ended = [
            stream.took(states[index : index + 1], token.done)
            for index, (stream, token) in enumerate(zip(live, tokens, strict=True))
        ]
        self._tell(_deliver, live, tokens, ended)
        return [stream for stream, over in zip(live, ended, strict=True) if not over]

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Call it in the event loop's thread. A loop that has been closed has no readers left to tell."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _run(self, live: Sequence[Stream]) -> tuple[list[Token], np.ndarray]:
        defaults = self._signature.defaults
        feeds = [
            np.concatenate(
                [stream.state if alias == "state" else stream.row(alias, defaults[alias]) for stream in live]
            )
            for alias in self._signature.input_tensors
        ]
        values = self._servable.run(self._signature, feeds, _OUTPUTS)
        done, log_prob, state, token, token_id = values
        rows = zip(token.tolist(), token_id.tolist(), log_prob.tolist(), done.tolist(), strict=True)
        return [Token(*row) for row in rows], state


def _deliver(live: Sequence[Stream], tokens: Sequence[Token], ended: Sequence[bool]) -> None:
    for stream, token, over in zip(live, tokens, ended, strict=True):
        stream.put(token, over)
