"""The flags of zoo-query: what is asked, and of whom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from absl import flags

from serving import program
from serving.connection import MAX_RETRIES, Connection, Tls

_LARGEST_INT64 = 2**63 - 1
_HOST_AND_PORT = r"\S+:\d+"


def connection() -> Connection:
    """How to reach the server.

    Raises:
        UsageError: the flags make no sense.
        UserError: a file that they name cannot be used.
    """
    values = flags.FLAGS
    return Connection(_server(), values.timeout_s, values.retries, bearer_token(), _tls())


def _server() -> str:
    value = flags.FLAGS.server
    if not re.fullmatch(rf"{_HOST_AND_PORT}|unix:.+", value):
        raise program.UsageError(f"--server={value} is not HOST:PORT, nor unix:/PATH")
    return value


def rest_server() -> str:
    """Where HTTP is answered."""
    value = flags.FLAGS.rest_server
    if not re.fullmatch(_HOST_AND_PORT, value):
        raise program.UsageError(f"--rest_server={value} is not HOST:PORT")
    return value


def model() -> dict[str, Any]:
    """Which model is asked, and which version of it, as a client takes it.

    Raises:
        UsageError: the version is named in two ways.
    """
    values = flags.FLAGS
    if values.version is not None and values.label is not None:
        raise program.UsageError("--version and --label are two ways to choose a version; give one of them")
    return {"model": values.model, "version": values.version, "version_label": values.label or ""}


def bearer_token() -> str:
    """What is in --bearer_token_file, '' without one."""
    path = flags.FLAGS.bearer_token_file
    if path is None:
        return ""
    token = read_file("bearer_token_file").decode("utf-8", "replace").strip()
    if not re.fullmatch("[!-~]+", token):
        raise program.UserError(
            f"a token is one word of printable ASCII characters (--bearer_token_file={path})"
        )
    return token


def _tls() -> Tls | None:
    values = flags.FLAGS
    paths = (values.tls_ca_file, values.tls_cert_file, values.tls_key_file)
    if not any(paths):
        return None
    if not values.tls_ca_file or bool(values.tls_cert_file) != bool(values.tls_key_file):
        raise program.UsageError(
            "TLS takes --tls_ca_file, and for a server that wants to know who asks both --tls_cert_file and "
            "--tls_key_file"
        )
    files = ("tls_ca_file", "tls_cert_file", "tls_key_file")
    return Tls(*(_read_pem(flag) if getattr(values, flag) else None for flag in files))


def _read_pem(flag: str) -> bytes:
    content = read_file(flag)
    if b"-----BEGIN " not in content:  # gRPC would only say that nobody answers
        raise program.UserError(f"nothing in PEM format (--{flag}={getattr(flags.FLAGS, flag)})")
    return content


def read_file(flag: str) -> bytes:
    """What is in the file that a flag names."""
    path = required(flag, "FILE")
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise program.UserError(f"{reason} (--{flag}={path})") from error


def required(flag: str, kind: str = "TEXT") -> str:
    """The value of a flag that the command cannot do without."""
    value = getattr(flags.FLAGS, flag)
    if value is None:
        raise program.UsageError(f"--{flag}={kind} is missing")
    return value


def given(*names: str) -> dict[str, Any]:
    """The values of those flags that were given: models have defaults of their own for the rest."""
    return {name: getattr(flags.FLAGS, name) for name in names if getattr(flags.FLAGS, name) is not None}


def define_flags() -> None:
    """Defined when the program runs, so that importing this module claims no flag names."""
    _define_what_is_asked()
    _define_who_is_asked()
    _define_bench()


def _define_what_is_asked() -> None:
    flags.DEFINE_string(
        "server", "127.0.0.1:8500", "HOST:PORT of the model server, or unix:/PATH of its --grpc_socket_path."
    )
    flags.DEFINE_string("model", "default", "Name of the model, as the server was told.")
    flags.DEFINE_integer(
        "version",
        None,
        "Number of the model's version that is asked; the newest if not given.",
        lower_bound=0,
        upper_bound=_LARGEST_INT64,
    )
    flags.DEFINE_string(
        "label", None, "Label of that version, instead of its number; status lists all whatever it is."
    )
    flags.DEFINE_string("prompt", None, "generate, beam, contrastive: the text to continue; may be empty.")
    flags.DEFINE_string("text", None, "The text that is asked about.")
    flags.DEFINE_string("context", None, "answer: the text that the question is about.")
    flags.DEFINE_string("question", None, "answer: the question.")
    flags.DEFINE_string(
        "model_config_file",
        None,
        "reload: file with what to serve, a ModelServerConfig in text format.",
    )
    flags.DEFINE_boolean("json", False, "Print only the JSON line.")


def _define_who_is_asked() -> None:
    flags.DEFINE_float(
        "timeout_s",
        60.0,
        "Seconds to wait for an answer of the server, all tries together; for all of a stream.",
        lower_bound=0.001,
    )
    flags.DEFINE_integer(
        "retries",
        3,
        "How often to ask again when the server is unavailable; never within a stream, nor to reload.",
        lower_bound=0,
        upper_bound=MAX_RETRIES,
    )
    flags.DEFINE_string("rest_server", "127.0.0.1:8501", "models: HOST:PORT of the server's HTTP API.")
    flags.DEFINE_string("bearer_token_file", None, "File with the token that the server wants.")
    flags.DEFINE_string(
        "tls_ca_file", None, "The connection is encrypted; PEM file of whom the server's certificate is."
    )
    flags.DEFINE_string("tls_cert_file", None, "PEM file of our own certificate, if the server wants one.")
    flags.DEFINE_string("tls_key_file", None, "PEM file of the key to that.")


def _define_bench() -> None:
    flags.DEFINE_float(
        "seconds", 10.0, "bench: how long to measure, after a second of warm-up.", lower_bound=0.1
    )
    flags.DEFINE_integer(
        "callers",
        None,
        "bench: so many ask, each as soon as it is answered; 1 if not given.",
        lower_bound=1,
    )
    flags.DEFINE_float(
        "rate",
        None,
        "bench: requests per second, at random times, whether the earlier ones are answered or not.",
        lower_bound=0.001,
    )
    flags.DEFINE_integer("channels", 1, "bench: so many connections share the load.", lower_bound=1)
