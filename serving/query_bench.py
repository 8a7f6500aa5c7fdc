"""zoo-query bench: any other command's request as load."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from serving import bench, management_calls, program
from serving.bench import LoadResult
from serving.calls import Call
from serving.client import Client
from serving.connection import Connection
from serving.generation_calls import Streaming
from serving.query_output import finish, show
from serving.query_texts import QUESTIONS

CALLS: Mapping[str, Callable[[Any], Call[Any]]] = {
    **{name: question.call for name, question in QUESTIONS.items()},
    "status": management_calls.status,
    "metadata": management_calls.metadata,
    "health": management_calls.is_serving,
}


def measure(client: Client, connection: Connection, command: str) -> None:
    """Puts the server under load, and prints how it bears it."""
    call = CALLS[command](client.spec)
    values = flags.FLAGS
    if values.rate is not None and values.callers is not None:
        raise program.UsageError("--callers and --rate are two ways to make load; give one of them")
    _try(client, call)
    options = {"seconds": values.seconds, "channels": values.channels, "progress": _progress}
    if values.rate is None:
        result = bench.closed_loop(connection, call, callers=values.callers or 1, **options)
    else:
        result = bench.open_loop(connection, call, rate=values.rate, **options)
    if not result.requests and result.errors:
        raise program.UserError(f"no request was answered: {_errors(result)}")
    show(_table(result))
    finish({"model": client.model, "command": command, **dataclasses.asdict(result)})


def _try(client: Client, call: Call[Any]) -> None:
    """One request, which says what is wrong with all of them, if anything is."""
    if isinstance(call, Streaming):
        for _ in client.receive(call):
            pass
    else:
        client.ask(call)


def _progress(seconds: float, answered: int) -> None:
    print(f"{seconds:g} s: {answered} requests answered", file=sys.stderr, flush=True)


def _table(result: LoadResult) -> str:
    lines = [
        f"{result.requests_per_second:.1f} requests/s ({result.requests} in {result.seconds:g} s)",
        f"latency: {_times(p50=result.p50_ms, p90=result.p90_ms, p99=result.p99_ms, max=result.max_ms)}",
    ]
    if result.tokens_per_second is not None:
        first = _times(p50=result.first_token_p50_ms, p99=result.first_token_p99_ms)
        lines += [f"{result.tokens_per_second:.1f} tokens/s", f"first token: {first}"]
    if result.errors:
        lines.append(f"errors: {_errors(result)}")
    return "\n".join(lines)


def _times(**milliseconds: float | None) -> str:
    return ", ".join(
        f"{name} {'-' if value is None else f'{value:.2f} ms'}" for name, value in milliseconds.items()
    )


def _errors(result: LoadResult) -> str:
    return ", ".join(f"{count} {code}" for code, count in sorted(result.errors.items()))
