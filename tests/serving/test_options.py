"""Flags as the stock server has them, and ours."""

import copy
import dataclasses
import os

import pytest
from absl import flags

from serving import options
from serving.batching import BatchingOptions
from serving.config_files import Tls
from serving.generation import StreamLimits
from serving.model_config import ModelConfig
from serving.options import ServerOptions
from serving.program import UsageError, UserError
from serving.repository import LoadPolicy
from serving.server_flags import FLAGS

# The stock server's (model_servers/main.cc, server.h), with its defaults.
STOCK = {
    "port": 8500,
    "grpc_socket_path": "",
    "rest_api_port": 0,
    "rest_api_timeout_in_ms": 30000,
    "rest_api_enable_cors_support": False,
    "model_name": "default",
    "model_base_path": "",
    "model_config_file": "",
    "model_config_file_poll_wait_seconds": 0,
    "file_system_poll_wait_seconds": 1,
    "enable_batching": False,
    "batching_parameters_file": "",
    "enable_per_model_batching_parameters": False,
    "allow_version_labels_for_unavailable_models": False,
    "max_num_load_retries": 5,
    "load_retry_interval_micros": 60 * 1000 * 1000,
    "ssl_config_file": "",
    "grpc_channel_arguments": "",
    "enable_model_warmup": True,
    "num_request_iterations_for_warmup": 0,
    "monitoring_config_file": "",
    "prefer_tflite_model": False,
    "enable_profiler": True,
    "enable_grpc_healthcheck_service": False,
    "enable_serialization_as_tensor_content": False,
}


@pytest.fixture
def parse():
    """Options and unknown arguments of a command line."""
    values = flags.FLAGS.__dict__
    saved = {name: copy.copy(value) for name, value in values.items()}
    options.define_flags()

    def parse(*arguments):
        rest = flags.FLAGS(["zoo-serve", *arguments], known_only=True)[1:]
        return options.from_flags(), rest

    yield parse
    values.clear()
    values.update(saved)


@pytest.fixture
def write(tmp_path):
    def write(text, name="file"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_stock_flags_and_their_defaults():
    ours = {flag.name: flag.default or type(STOCK.get(flag.name, ""))() for flag in FLAGS}
    assert {name: ours.get(name) for name in STOCK} == STOCK


def test_defaults(parse):
    parsed, rest = parse("--model_base_path=/models/a")
    assert rest == []
    threads = max(16, 4 * os.cpu_count())
    assert dataclasses.replace(parsed, policy=LoadPolicy(), port=0, max_threads=16) == ServerOptions(
        "default", "/models/a", grpc_channel_arguments=[]
    )
    assert (parsed.policy, parsed.port, parsed.max_threads) == (LoadPolicy(), 8500, threads)
    assert parsed.initial_models() == [ModelConfig("default", "/models/a")]
    assert (parsed.host, parsed.limits) == ("127.0.0.1", StreamLimits(256, 4096, 600.0))
    assert (parsed.max_batch_rows, parsed.max_message_bytes) == (1 << 16, 64 << 20)


# Flag, field, value
VALUES = [
    ("--port=1", "port", 1),
    ("--grpc_socket_path=/run/s", "grpc_socket_path", "/run/s"),
    ("--rest_api_port=8501", "rest_api_port", 8501),
    ("--rest_api_port=0", "rest_api_port", None),
    ("--rest_api_enable_cors_support", "rest_api_cors", True),
    ("--rest_api_timeout_in_ms=1500", "rest_api_timeout_seconds", 1.5),
    ("--model_name=m", "model_name", "m"),
    ("--enable_batching", "batching", BatchingOptions()),
    ("--enable_batching=true", "batching", BatchingOptions()),
    ("--enable_batching=false", "batching", None),
    ("--noenable_model_warmup", "warm_up_iterations", 0),
    ("--enable_model_warmup=false", "warm_up_iterations", 0),
    ("--num_request_iterations_for_warmup=3", "warm_up_iterations", 3),
    ("--num_request_iterations_for_warmup=0", "warm_up_iterations", 1),
    ("--prefer_tflite_model", "prefer_tflite_model", True),
    ("--enable_profiler=false", "profiler_service", False),
    ("--enable_grpc_healthcheck_service=true", "health_service", True),
    ("--enable_serialization_as_tensor_content", "serialize_as_tensor_content", True),
    ("--host=::", "host", "::"),
    ("--max_message_bytes=7", "max_message_bytes", 7),
    ("--max_batch_rows=7", "max_batch_rows", 7),
    ("--grpc_max_threads=7", "max_threads", 7),
    ("--max_streams=1", "limits", StreamLimits(max_streams=1)),
    ("--max_stream_tokens=2", "limits", StreamLimits(max_tokens=2)),
    ("--max_stream_seconds=0.5", "limits", StreamLimits(max_seconds=0.5)),
    ("--shutdown_grace_seconds=1.5", "shutdown_grace_seconds", 1.5),
    ("--log_format=json", "log_format", "json"),
    ("--file_system_poll_wait_seconds=9", "policy", LoadPolicy(poll_seconds=9)),
    ("--max_num_load_retries=0", "policy", LoadPolicy(max_retries=0)),
    ("--load_retry_interval_micros=1500000", "policy", LoadPolicy(retry_seconds=1.5)),
    ("--load_retry_interval_micros=-1", "policy", LoadPolicy(retry_seconds=0)),
    (
        "--allow_version_labels_for_unavailable_models",
        "policy",
        LoadPolicy(allow_unavailable_labels=True),
    ),
    (
        "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,a=x,b=-3,c=1=2,d=2147483648,e=,f=1.5",
        "grpc_channel_arguments",
        [
            ("grpc.max_connection_age_ms", 2000),
            ("a", "x"),
            ("b", -3),
            ("c", "1=2"),
            ("d", "2147483648"),
            ("e", ""),
            ("f", "1.5"),
        ],
    ),
]


@pytest.mark.parametrize(("flag", "field", "value"), VALUES)
def test_values(parse, flag, field, value):
    parsed, rest = parse("--model_base_path=/models/a", flag)
    assert rest == []
    assert getattr(parsed, field) == value


def test_unknown_flags_are_left_over(parse):
    parsed, rest = parse("--tensorflow_session_parallelism=2", "--model_base_path=/models/a", "--version")
    assert rest == ["--tensorflow_session_parallelism=2", "--version"]
    assert parsed.model_base_path == "/models/a"


def test_files(parse, write):
    models = write('model_config_list { config { name: "a" base_path: "/a" model_platform: "tensorflow" } }')
    parsed, _ = parse(
        f"--model_config_file={models}",
        "--model_config_file_poll_wait_seconds=5",
        "--model_name=",
        "--enable_batching",
        f"--batching_parameters_file={write('max_batch_size { value: 9 }', 'batching')}",
        "--enable_per_model_batching_parameters",
        f"--monitoring_config_file={write('prometheus_config { enable: true }', 'monitoring')}",
        f"--ssl_config_file={write('''server_key: 'k' server_cert: 'c' ''', 'tls')}",
        f"--bearer_token_file={write(' s3cret ' + chr(10), 'token')}",
    )
    assert parsed.initial_models() == parsed.models == [ModelConfig("a", "/a")]
    assert (parsed.model_config_file, parsed.model_config_file_poll_seconds) == (models, 5)
    assert (parsed.batching, parsed.per_model_batching) == (BatchingOptions(9), True)
    assert parsed.prometheus_path == "/monitoring/prometheus/metrics"
    assert parsed.tls == Tls("k", "c")
    assert parsed.bearer_token == "s3cret"
    assert "s3cret" not in repr(parsed)


def test_labels_at_the_start_must_be_allowed(parse, write):
    """No version is loaded then."""
    path = write(
        'model_config_list { config { name: "a" base_path: "/a" model_platform: "tensorflow" '
        'version_labels { key: "stable" value: 7 } } }'
    )
    with pytest.raises(UserError) as raised:
        parse(f"--model_config_file={path}")
    assert str(raised.value) == (
        "Request to assign label to version 7 of model a, which is not currently available for inference; "
        "--allow_version_labels_for_unavailable_models lets labels be given at the start "
        f"(--model_config_file={path})"
    )
    parsed, _ = parse(f"--model_config_file={path}", "--allow_version_labels_for_unavailable_models")
    assert parsed.initial_models() == [ModelConfig("a", "/a", labels={"stable": 7})]


def test_per_model_batching_is_nothing_without_batching(parse):
    parsed, _ = parse("--model_base_path=/a", "--enable_per_model_batching_parameters")
    assert (parsed.batching, parsed.per_model_batching) == (None, False)


def test_reloading_is_off_unless_enabled(parse):
    base = "--model_base_path=/a"
    assert parse(base, "--reloadable_base_paths=/b,/c")[0].reloadable_base_paths is None
    parsed, _ = parse(base, "--reloadable_base_paths=/b,/c", "--allow_model_config_reload")
    assert parsed.reloadable_base_paths == ["/b", "/c"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "what to serve? --model_base_path=BASE is the folder that holds <version>/; "
            "--model_config_file=FILE lists several models",
        ),
        (["--model_base_path=/a", "--model_name="], "--model_name is empty"),
        (
            ["--model_base_path=/a", "--rest_api_port=8500"],
            "--rest_api_port=8500 cannot be same as --port; give it another",
        ),
        (
            ["--model_base_path=/a", "--batching_parameters_file=/b"],
            "--batching_parameters_file is set without setting --enable_batching to true",
        ),
        (
            ["--model_base_path=/a", "--allow_model_config_reload"],
            "--allow_model_config_reload needs --reloadable_base_paths=DIR,DIR, the folders that callers may "
            "have models from",
        ),
        (
            ["--model_base_path=/a", "--allow_model_config_reload", "--reloadable_base_paths=/b,c"],
            "--reloadable_base_paths: c is not an absolute path",
        ),
        (
            ["--model_base_path=/a", "--grpc_channel_arguments=a=1,b"],
            "--grpc_channel_arguments: b is not KEY=VALUE",
        ),
    ],
)
def test_command_lines_that_cannot_be(parse, arguments, message):
    with pytest.raises(UsageError) as raised:
        parse(*arguments)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "argument",
    ["--port=http", "--port=70000", "--rest_api_port=-1", "--max_batch_rows=0", "--log_format=xml"],
)
def test_values_that_cannot_be(parse, argument):
    with pytest.raises(flags.IllegalFlagValueError, match=argument.removeprefix("--").partition("=")[0]):
        parse("--model_base_path=/a", argument)


@pytest.mark.parametrize("flag", ["model_config_file", "ssl_config_file", "monitoring_config_file"])
def test_files_that_are_not_there(parse, flag):
    with pytest.raises(UserError) as raised:
        parse("--model_base_path=/a", f"--{flag}=/nowhere")
    assert str(raised.value) == f"no such file or directory (--{flag}=/nowhere)"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("\n", "the file is empty"),
        ("two words", "a token is of one line of printable ASCII characters"),
        ("two\nlines", "a token is of one line of printable ASCII characters"),
        ("schlüssel", "a token is of one line of printable ASCII characters"),
    ],
)
def test_tokens_that_cannot_be(parse, write, text, problem):
    path = write(text)
    with pytest.raises(UserError) as raised:
        parse("--model_base_path=/a", f"--bearer_token_file={path}")
    assert str(raised.value) == f"{problem} (--bearer_token_file={path})"
