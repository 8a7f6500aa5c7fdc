"""zoo-serve: a model server with TensorFlow Serving's gRPC and HTTP API.

    zoo-serve --model_name=NAME --model_base_path=BASE [--port=8500 --rest_api_port=8501]
    zoo-serve --model_config_file=FILE

Serves the newest BASE/<version>/ (any SavedModel) and moves on to a newer one as soon as it is there: the
new version is loaded first, then takes over, then the old one is freed. Language models also write texts
token by token: the RPC rnn_zoo.serving.GenerationService/Generate, and over HTTP /v1/models/NAME:generate and
/v1/completions. When it listens it prints one JSON line, {"host": ..., "port": ..., "model": ...}, on
stdout. SIGTERM and Ctrl-C stop it: it accepts no more, finishes what is under way, and exits with code 0; a
second signal does not wait. Flags are the stock server's where it has them; unknown ones are reported and
ignored.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent import futures
from types import FrameType
from typing import Any

# What gRPC would log repeats our own messages, in many lines. Set before it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from absl import logging
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from serving import (
    completions,
    config_files,
    descriptors,
    event_streams,
    generation,
    listening,
    logs,
    options,
    profiler_messages,
    program,
    rest,
    rpc,
)
from serving.batching import Batcher
from serving.config_polling import ModelConfigPoller
from serving.generation import GenerationService, Generator
from serving.listening import HttpServer
from serving.management import ModelService
from serving.messages import model_service_pb2, prediction_service_pb2
from serving.metrics import Metrics
from serving.options import ServerOptions
from serving.prediction import PredictionService
from serving.profiling import ProfilerService
from serving.replay import replay
from serving.repository import Repository
from serving.versions import Servable
from serving.warmup import WarmUp

_TFLITE_FILE = "model.tflite"
_HEALTH_SERVICES = ("", "ModelService", "PredictionService")


class ModelServer:
    """gRPC and HTTP in an event loop of its own thread, and the repository that they answer from."""

    def __init__(self, options: ServerOptions, load: Callable[[str], Servable]):
        """Binds the ports, and answers nothing yet.

        Raises:
            UserError: an address cannot be had.
        """
        self._options, self._load = options, load
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server", daemon=True)
        self._thread.start()
        self._health = health.aio.HealthServicer()
        self._metrics = Metrics(lambda: self.repository.model_names())
        self._batcher = Batcher(options.batching, options.max_threads, self._metrics, options.max_batch_rows)
        warm_up = WarmUp(replay, options.warm_up_iterations, self._metrics.warmed_up)
        self.repository = Repository(
            options.initial_models(),
            self._load_version,
            options.policy,
            self._report_health,
            *([warm_up] if options.warm_up_iterations else []),
        )
        self._generator = Generator(self.repository, self._batcher, options.limits, self._metrics)
        self._poller = ModelConfigPoller(
            options.model_config_file,
            options.model_config_file_poll_seconds,
            self.repository.configure,
            self.repository.model_names,
        )
        self._http: HttpServer | None = None
        self._wait_for(self._set_up(options))

    def _load_version(self, path: str) -> Servable:
        if not self._options.per_model_batching:
            return self._load(path)
        batching = config_files.read_model_batching(path)
        servable = self._load(path)
        self._batcher.use(servable, batching)
        return servable

    async def _set_up(self, options: ServerOptions) -> None:
        prediction = PredictionService(
            self.repository, self._batcher, self._metrics, options.serialize_as_tensor_content
        )
        management = ModelService(self.repository, options.reloadable_base_paths)
        self._grpc = listening.grpc_server(options)
        services: dict[Any, object] = {
            _service(prediction_service_pb2): prediction,
            _service(model_service_pb2): management,
            generation.SERVICE: GenerationService(self._generator),
        }
        if options.profiler_service:
            services[profiler_messages.SERVICE] = ProfilerService()
        self._add_services(services)
        self.port = listening.bind_grpc(self._grpc, options)
        if options.rest_api_port is not None:
            application = rest.application(
                prediction, management, self.repository, self._rest_settings(), self._generation_routes()
            )
            self._http = HttpServer(application, options.host, options.rest_api_port)

    def _add_services(self, services: dict[Any, object]) -> None:
        observe, seconds = self._metrics.observer("GRPC"), self._options.limits.max_seconds
        self._grpc.add_generic_rpc_handlers(
            tuple(rpc.handler(service, servicer, observe, seconds) for service, servicer in services.items())
        )
        described = [*services, _service(reflection_pb2)]
        if self._options.health_service:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
            described.append(_service(health_pb2))
        pool = descriptors.pool(service.file for service in described)
        reflection.enable_server_reflection([service.full_name for service in described], self._grpc, pool)

    def _rest_settings(self) -> rest.Settings:
        options = self._options
        return rest.Settings(
            timeout_seconds=options.rest_api_timeout_seconds,
            max_body_bytes=options.max_message_bytes,
            cors=options.rest_api_cors,
            bearer_token=options.bearer_token,
            metrics_path=options.prometheus_path or "",
            metrics=self._metrics.text,
            ready=self.repository.all_available,
            observe=self._metrics.observer("REST"),
        )

    def _generation_routes(self) -> list[Any]:
        return [*event_streams.routes(self._generator), *completions.routes(self._generator)]

    @property
    def rest_api_port(self) -> int | None:
        """Where HTTP is answered, if it is."""
        return None if self._http is None else self._http.port

    def _wait_for(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _report_health(self) -> None:
        self._wait_for(self._set_health(self.repository.all_available()))

    async def _set_health(self, is_serving: bool) -> None:
        response = health_pb2.HealthCheckResponse
        for service in _HEALTH_SERVICES:
            await self._health.set(service, response.SERVING if is_serving else response.NOT_SERVING)

    def start(self) -> None:
        """Answer requests. The repository is started separately, usually before."""
        self._wait_for(self._start())
        if self._options.model_config_file_poll_seconds:
            self._poller.start()

    async def _start(self) -> None:
        await self._grpc.start()
        if self._http:
            self._http.start()

    def stop(self, grace_seconds: float, hurry: Callable[[], bool] = lambda: False) -> bool:
        """Accept no more, wait for what is under way, free the models; False if some had to be cut off.

        `hurry` is asked several times a second whether to wait no longer. Once stopped, it stays so.
        """
        if not self._loop.is_running():
            return True
        self._poller.close()
        self._wait_for(self._health.enter_graceful_shutdown())
        stopped = asyncio.run_coroutine_threadsafe(self._stop(grace_seconds), self._loop)
        while not futures.wait([stopped], 0.1).done:
            if hurry():
                self._wait_for(self._hurry())
                break
        self._batcher.close()
        closed = self.repository.close(timeout=1.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        return closed

    async def _stop(self, grace_seconds: float) -> None:
        stopping = [self._grpc.stop(grace_seconds)]
        if self._http:
            stopping.append(self._http.stop(grace_seconds))
        await asyncio.gather(*stopping)

    async def _hurry(self) -> None:
        if self._http:
            self._http.hurry()
        await self._grpc.stop(None)


def _service(module: Any) -> Any:
    """The descriptor of the one service that a module of stubs defines."""
    (service,) = module.DESCRIPTOR.services_by_name.values()
    return service


class _StopRequests:
    """Counts SIGTERM and SIGINT, which mean the same here: one is a request, two are impatience."""

    def __init__(self) -> None:
        self.count = 0
        signal.signal(signal.SIGTERM, self._add)
        signal.signal(signal.SIGINT, self._add)

    def _add(self, _signal: int, _frame: FrameType | None) -> None:
        self.count += 1


@functools.cache
def _saved_model_class() -> Callable[[str], Servable]:
    with program.native_stderr_muted():
        from serving import saved_model

        saved_model.set_up_tensorflow()
    return saved_model.SavedModel


def load_version(path: str, prefer_tflite: bool = False) -> Servable:
    """Loads a version. TensorFlow comes in with the first: it takes seconds, and a wrong flag should not."""
    load = _saved_model_class()
    if prefer_tflite and os.path.exists(os.path.join(path, _TFLITE_FILE)):
        from serving.tflite_model import TfLiteModel

        load = TfLiteModel
    return load(path)


def main(arguments: Sequence[str]) -> None:
    """Serve until a signal comes."""
    # TensorFlow leaves oneDNN off on CPUs without AVX512-VNNI; there, too, it runs a language model's step
    # for one text five times as fast, and for 32 texts 1.5 times. Set before TensorFlow is imported.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    logging.set_verbosity(logging.INFO)
    stop_requests = _StopRequests()
    for argument in arguments:
        print(f"zoo-serve: unknown argument ignored: {argument}", file=sys.stderr)
    server_options = options.from_flags()
    if server_options.log_format == "json":
        logs.write_json()
    load = functools.partial(load_version, prefer_tflite=server_options.prefer_tflite_model)
    server = ModelServer(server_options, load)
    server.repository.start()
    if _wait_until_available(server.repository, lambda: stop_requests.count > 0):
        server.start()
        _announce(server_options, server)
    while not stop_requests.count:
        time.sleep(0.1)  # not signal.pause(): a signal just before it would be missed
    server.stop(server_options.shutdown_grace_seconds, lambda: stop_requests.count > 1)
    # Nothing is left to do. Python would take its time over TensorFlow's objects, and wait for a request or a
    # load that runs in TensorFlow, which cannot be interrupted.
    sys.stdout.flush()
    os._exit(0)


def _wait_until_available(repository: Repository, stop: Callable[[], bool]) -> bool:
    """Like the stock server: waits for versions for ever, unless loading has failed for good."""
    while not stop():
        if repository.wait_until_settled(timeout=0.2):
            for name, error in repository.failures():
                raise program.UserError(f"cannot serve {name}: {error.message}")
            return True
    return False


def _announce(options: ServerOptions, server: ModelServer) -> None:
    """Three lines for people, and one for programs."""
    names = server.repository.model_names()
    http = f", HTTP on {options.host}:{server.rest_api_port}" if server.rest_api_port else ""
    for line in (
        f"listening: gRPC on {options.host}:{server.port}{http}",
        f"serving: {', '.join(names) or 'nothing'}",
        "Ctrl-C stops it, when what is under way is done",
    ):
        print(f"zoo-serve: {line}", file=sys.stderr, flush=True)
    ports = {"rest_api_port": server.rest_api_port} if server.rest_api_port else {}
    print(
        json.dumps({"host": options.host, "port": server.port, "model": ",".join(names), **ports}), flush=True
    )


def run() -> None:
    """The program."""
    options.define_flags()
    program.run("zoo-serve", main, __doc__ or "", ["serving.options"], known_flags_only=True)
