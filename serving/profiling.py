"""tensorflow.ProfilerService: what TensorFlow runs, recorded for some seconds.

    tf.profiler.experimental.client.trace("grpc://localhost:8500", LOGDIR, duration_ms=2000)

puts it into LOGDIR, for TensorBoard. The stock server writes a file of its own, where the request says; here
it comes in the response, which that client writes to the same place, and no path of a request is used.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from typing import Any

import grpc

from serving.profiler_messages import ProfileResponse, TerminateResponse, XLine, XPlane, XSpace
from serving.rpc import StatusError, invalid

# A busy server records some hundred thousand operations a second, and holds them in memory.
MAX_SECONDS = 10.0
_FILE = "xplane.pb"  # as TensorBoard expects it; the client puts the server's address before it
# Those of Python calls are left out: they would slow down the server, and the stock one has none.
_LEVELS = ("host_tracer_level", "device_tracer_level")


@dataclasses.dataclass
class _Session:
    id: str
    ended: threading.Event = dataclasses.field(default_factory=threading.Event)


class ProfilerService:
    """Records one session at a time."""

    def __init__(self) -> None:
        self._session: _Session | None = None

    async def Profile(self, request: Any) -> Any:  # noqa: N802 - the RPC's name
        """Records for `opts.duration_ms`, from `opts.start_timestamp_ns` on if that is to come.

        Both lie at most `MAX_SECONDS` ahead. Of `opts` it heeds, besides, the levels of host and device; like
        the stock server it ignores `tools`, `max_events` and the request's own `duration_ms`.
        """
        delay = max(request.opts.start_timestamp_ns / 1e9 - time.time(), 0.0)
        seconds = request.opts.duration_ms / 1e3
        if delay > MAX_SECONDS:
            raise invalid(
                f"opts.start_timestamp_ns is {delay:g} s ahead; at most {MAX_SECONDS:g} s are allowed"
            )
        if seconds > MAX_SECONDS:
            raise invalid(f"opts.duration_ms is {seconds:g} s; at most {MAX_SECONDS:g} s are recorded")
        if self._session is not None:
            raise StatusError(grpc.StatusCode.INTERNAL, "Another profiling session active.")
        session = self._session = _Session(request.session_id)
        recording = asyncio.get_running_loop().run_in_executor(
            None, _record, request, delay, seconds, session.ended
        )
        recording.add_done_callback(self._forget)
        try:
            return await asyncio.shield(recording)
        finally:
            session.ended.set()  # when the caller has gone, too

    def _forget(self, _: Any) -> None:
        self._session = None

    def Terminate(self, request: Any) -> Any:  # noqa: N802
        """Ends the session of that `session_id`, if it is running; what it has recorded is answered."""
        if self._session is not None and self._session.id == request.session_id:
            self._session.ended.set()
        return TerminateResponse()

    def Monitor(self, request: Any) -> Any:  # noqa: N802
        """As the stock server answers it: there is a summary of TPUs only."""
        raise StatusError(grpc.StatusCode.UNIMPLEMENTED, "unimplemented.")


def _record(request: Any, delay: float, seconds: float, ended: threading.Event) -> Any:
    """The response."""
    from serving import tracing  # as late as the models, which bring in TensorFlow

    # Without a version, the levels' zeros mean nothing.
    levels = {level: getattr(request.opts, level) for level in _LEVELS if request.opts.version}
    ended.wait(delay)
    trace = tracing.record(levels, seconds, ended)
    response = ProfileResponse(empty_trace=_is_empty(trace))
    if request.emit_xspace:
        response.xspace.ParseFromString(trace)
    else:
        response.tool_data.add(name=_FILE, data=trace)
    return response


def _is_empty(trace: bytes) -> bool:
    """Whether nothing happened, as the stock server sees it."""
    lines = (line for plane in XSpace.FromString(trace).planes for line in XPlane.FromString(plane).lines)
    return not any(XLine.FromString(line).events for line in lines)
