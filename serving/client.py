"""zoo-query: asks a model server (zoo-serve, or the stock TensorFlow Serving) over gRPC.

    zoo-query generate  --model=NAME --prompt=TEXT [--max_new_tokens=N --temperature=X --seed=N --stream]
    zoo-query score     --model=NAME --text=TEXT
    zoo-query classify  --model=NAME --text=TEXT
    zoo-query tag       --model=NAME --text=TEXT
    zoo-query translate --model=NAME --text=TEXT [--beam_width=N --max_new_tokens=N]
    zoo-query answer    --model=NAME --context=TEXT --question=TEXT
    zoo-query embed     --model=NAME --text=TEXT
    zoo-query status    --model=NAME

`generate` continues a text, `score` says how likely one is, `classify` what kind it is of, `tag` what each
of its tokens is, `translate` what it is in the other language; `answer` answers a question about a text, and
`embed` makes a vector of one. `status` lists the versions of a model. The server is --server=HOST:PORT. The
result for people comes first; the last line on stdout is the result as JSON (alone with --json), log
probabilities in nats. Exit code 0 only if there is a result.
"""

from __future__ import annotations

import codecs
import io
import json
import math
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from serving import alignment, program
from serving.connection import Client

_LARGEST_INT32 = 2**31 - 1


def _generate(client: Client) -> None:
    values = flags.FLAGS
    prompt = _required("prompt")
    options = _sampling_options()
    if values.stream:
        result = _show_stream(client, prompt, options)
    else:
        if values.max_new_tokens is not None:
            options["max_new_tokens"] = np.array([values.max_new_tokens], np.int32)
        if values.seed is not None:
            options["seed"] = np.array([[values.seed, 0]], np.int32)
        result = client.generate(prompt, options)
        _show(prompt + result["text"])
    _finish(client, {"prompt": prompt, **result})


def _show_stream(client: Client, prompt: str, options: Mapping[str, np.ndarray]) -> dict[str, Any]:
    values = flags.FLAGS
    max_new_tokens = values.max_new_tokens
    if max_new_tokens is None:  # as many as without --stream
        max_new_tokens = int(client.default("generate", "max_new_tokens") or 0)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces, log_probs = [], []
    _show(prompt, end="")
    try:
        for token in client.stream(prompt, max_new_tokens, options, values.seed):
            pieces.append(decoder.decode(token.text))
            log_probs.append(token.log_prob)
            _show(pieces[-1], end="")
    finally:  # what follows, a result or an error, begins a new line
        pieces.append(decoder.decode(b"", final=True))
        _show(pieces[-1])
    return {"text": "".join(pieces), "num_tokens": len(log_probs), "log_prob": math.fsum(log_probs)}


def _score(client: Client) -> None:
    text = _required("text")
    result = client.score(text)
    _show(
        f"log probability {result['log_prob']:.4f} nats, {result['num_tokens']} tokens, "
        f"perplexity {result['perplexity']:.4f}"
    )
    _finish(client, {"text": text, **result})


def _classify(client: Client) -> None:
    text = _required("text")
    result = client.classify(text)
    for label, probability in sorted(result["probabilities"].items(), key=lambda item: -item[1]):
        _show(f"{probability:7.2%}  {label}")
    _finish(client, {"text": text, **result})


def _tag(client: Client) -> None:
    text = _required("text")
    result = client.tag(text)
    _show(alignment.under(result["tokens"], result["tags"], shutil.get_terminal_size().columns))
    _finish(client, {"text": text, **result})


def _translate(client: Client) -> None:
    text = _required("text")
    names = ("beam_width", "max_new_tokens")
    given = {name: getattr(flags.FLAGS, name) for name in names if getattr(flags.FLAGS, name) is not None}
    options = {name: np.array([value], np.int32) for name, value in given.items()}
    result = client.translate(text, options)
    _show(result["translation"])
    _finish(client, {"text": text, **result})


def _answer(client: Client) -> None:
    context, question = _required("context"), _required("question")
    result = client.answer(context, question)
    _show(f"{result['answer']}  ({result['score']:.0%} sure)")
    _finish(client, {"question": question, **result})


def _embed(client: Client) -> None:
    text = _required("text")
    result = client.embed(text)
    values = result["embedding"]
    shown = " ".join(f"{value:.3f}" for value in values[:8])
    _show(f"{len(values)} numbers: {shown}{' ...' if len(values) > 8 else ''}")
    _finish(client, {"text": text, **result})


def _status(client: Client) -> None:
    versions = client.status()
    for version in versions:
        error = f": {version['error_code']}: {version['error_message']}" if version["error_message"] else ""
        _show(f"{client.model} version {version['version']} is {version['state']}{error}")
    _finish(client, {"versions": versions})


_COMMANDS = {
    "generate": _generate,
    "score": _score,
    "classify": _classify,
    "tag": _tag,
    "translate": _translate,
    "answer": _answer,
    "embed": _embed,
    "status": _status,
}


def _sampling_options() -> dict[str, np.ndarray]:
    """Those that were given: the model has defaults of its own for the rest."""
    dtypes = {"temperature": np.float32, "top_k": np.int32, "top_p": np.float32}
    given = {name: getattr(flags.FLAGS, name) for name in dtypes if getattr(flags.FLAGS, name) is not None}
    for name, value in given.items():
        if not math.isfinite(value) or (name == "top_p" and value == 0):
            raise program.UsageError(f"--{name}={value} makes no sense: {flags.FLAGS[name].help}")
    return {name: np.array([value], dtypes[name]) for name, value in given.items()}


def _required(flag: str) -> str:
    value = getattr(flags.FLAGS, flag)
    if value is None:
        raise program.UsageError(f"--{flag}=TEXT is missing")
    return value


def _show(text: str, end: str = "\n") -> None:
    """What people read; a script wants only the last line."""
    if not flags.FLAGS.json:
        print(text, end=end, flush=True)


def _finish(client: Client, result: Mapping[str, Any]) -> None:
    # JSON has no number for infinity, as the log probability of the impossible is.
    strict = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in result.items()
    }
    version = {} if client.version is None else {"version": client.version}
    print(json.dumps({"model": client.model, **version, **strict}), flush=True)


def main(arguments: Sequence[str]) -> None:
    """Carry out one command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not have all of a model's characters
    commands = ", ".join(_COMMANDS)
    if len(arguments) != 1 or arguments[0] not in _COMMANDS:
        got = " ".join(arguments) or "nothing"
        raise program.UsageError(f"expected one command out of {commands}; got {got}")
    values = flags.FLAGS
    if not re.fullmatch(r"\S+:\d+", values.server):
        raise program.UsageError(f"--server={values.server} is not HOST:PORT")
    with Client(values.server, values.model, values.timeout_s) as client:
        _COMMANDS[arguments[0]](client)


def define_flags() -> None:
    """Defined when the program runs, so that importing this module claims no flag names."""
    flags.DEFINE_string("server", "127.0.0.1:8500", "HOST:PORT of the model server.")
    flags.DEFINE_string("model", "default", "Name of the model, as the server was told.")
    flags.DEFINE_string("prompt", None, "generate: the text to continue; may be empty.")
    flags.DEFINE_string("text", None, "The text that is asked about.")
    flags.DEFINE_string("context", None, "answer: the text that the question is about.")
    flags.DEFINE_string("question", None, "answer: the question.")
    flags.DEFINE_integer(
        "max_new_tokens", None, "generate: stop after so many.", lower_bound=0, upper_bound=_LARGEST_INT32
    )
    flags.DEFINE_float(
        "temperature", None, "generate: 0 takes the likeliest token, 1 samples as trained.", lower_bound=0
    )
    flags.DEFINE_integer(
        "beam_width", None, "translate: how many hypotheses are followed; 1 is greedy.", lower_bound=1
    )
    flags.DEFINE_integer(
        "top_k",
        None,
        "generate: sample among the K likeliest tokens; 0 means all.",
        lower_bound=0,
        upper_bound=_LARGEST_INT32,
    )
    flags.DEFINE_float(
        "top_p",
        None,
        "generate: sample among the likeliest tokens that have this share, above 0 and up to 1.",
        lower_bound=0,
        upper_bound=1,
    )
    flags.DEFINE_integer(
        "seed",
        None,
        "generate: the same seed draws the same text again, from the same model and in the same way "
        "(streamed or not); without one each text is new.",
        lower_bound=0,
        upper_bound=_LARGEST_INT32,
    )
    flags.DEFINE_boolean("stream", False, "generate: show tokens as they come.")
    flags.DEFINE_boolean("json", False, "Print only the JSON line.")
    flags.DEFINE_float("timeout_s", 60.0, "Seconds to wait for each answer of the server.", lower_bound=0.001)


def run() -> None:
    """The program."""
    define_flags()
    program.run("zoo-query", main, __doc__ or "", ["serving.client"])
