"""The options of zoo-serve, and the flags that set them: the stock server's names where it has them."""

from __future__ import annotations

import dataclasses
import os

from absl import flags

from serving import program
from serving.repository import LoadPolicy


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """What the flags say."""

    model_name: str
    model_base_path: str
    host: str = "127.0.0.1"
    port: int = 0  # 0: any that is free
    policy: LoadPolicy = dataclasses.field(default_factory=LoadPolicy)
    max_threads: int = 16
    max_message_bytes: int = 64 << 20
    shutdown_grace_seconds: float = 30.0


def from_flags() -> ServerOptions:
    """What the command line says.

    Raises:
        UsageError: it does not say enough.
    """
    values = flags.FLAGS
    if not values.model_base_path:
        raise program.UsageError("what to serve? --model_base_path=BASE is the folder that holds <version>/")
    if not values.model_name:
        raise program.UsageError("--model_name is empty")
    return ServerOptions(
        model_name=values.model_name,
        model_base_path=values.model_base_path,
        host=values.host,
        port=values.port,
        policy=LoadPolicy(
            poll_seconds=values.file_system_poll_wait_seconds,
            max_retries=values.max_num_load_retries,
            retry_seconds=values.load_retry_interval_micros / 1e6,
        ),
        max_threads=values.grpc_max_threads,
        max_message_bytes=values.max_message_bytes,
        shutdown_grace_seconds=values.shutdown_grace_seconds,
    )


def define_flags() -> None:
    """Defined when the program runs, so that importing this module claims no flag names."""
    flags.DEFINE_string("model_name", "default", "Name under which the model is served.")
    flags.DEFINE_string("model_base_path", None, "Folder that holds the versions of the model.")
    flags.DEFINE_integer(
        "port", 8500, "Port of gRPC; 0 takes any that is free.", lower_bound=0, upper_bound=65535
    )
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0 for all of this machine's.")
    flags.DEFINE_integer(
        "file_system_poll_wait_seconds",
        1,
        "Seconds between looks for a new version; 0 looks only until there is one.",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "max_num_load_retries", 5, "How often to try again to load a version that failed.", lower_bound=0
    )
    flags.DEFINE_integer(
        "load_retry_interval_micros", 60_000_000, "Microseconds between these tries.", lower_bound=0
    )
    flags.DEFINE_integer(
        "grpc_max_threads", max(16, 4 * (os.cpu_count() or 1)), "Requests answered at once.", lower_bound=1
    )
    flags.DEFINE_integer("max_message_bytes", 64 << 20, "Largest request accepted.", lower_bound=1)
    flags.DEFINE_float(
        "shutdown_grace_seconds", 30.0, "How long to wait for requests when asked to stop.", lower_bound=0
    )
