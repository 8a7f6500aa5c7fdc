"""zoo-query: asks a model server (zoo-serve, or the stock TensorFlow Serving).

    zoo-query generate    --model=NAME --prompt=TEXT [--max_new_tokens=N --temperature=X --seed=N]
                          [--min_p=X --typical_p=X --repetition_penalty=X --stop=TEXT --bad_words=TEXT]
                          [--stream | --details]
    zoo-query score       --model=NAME --text=TEXT [--details]
    zoo-query beam        --model=NAME --prompt=TEXT [--beam_width=N --max_new_tokens=N --length_penalty=X]
    zoo-query contrastive --model=NAME --prompt=TEXT [--max_new_tokens=N --top_k=N --alpha=X]
    zoo-query classify    --model=NAME --text=TEXT
    zoo-query tag         --model=NAME --text=TEXT
    zoo-query translate   --model=NAME --text=TEXT [--beam_width=N --max_new_tokens=N]
    zoo-query answer      --model=NAME --context=TEXT --question=TEXT
    zoo-query embed       --model=NAME --text=TEXT
    zoo-query status      --model=NAME
    zoo-query metadata    --model=NAME
    zoo-query models      [--rest_server=HOST:PORT]
    zoo-query reload      --model_config_file=FILE
    zoo-query health
    zoo-query bench COMMAND ... [--seconds=S] [--callers=N | --rate=R]

`generate` continues a text by drawing one token after another, and `score` says how likely a text is; with
--details they say so of each token, and what else might have been in its place. `beam` finds the likeliest
continuations, and `contrastive` one that is likely and does not repeat itself. `classify` says what kind of
text one is, `tag` what each of its tokens is, `translate` what it is in the other language; `answer` answers
a question about a text, and `embed` makes a vector of one. `status` lists the versions of a model, `metadata`
what can be asked of it, and `models` all that are served. `reload` has the server serve what a file says, and
nothing else; `health` says whether all of its models can answer. `bench` asks what COMMAND asks, again and
again: so many callers, each as soon as it is answered, or at random times, so many requests per second.
The server is --server=HOST:PORT or --server=unix:/PATH. Of the model its newest version is asked, or
--version=N, or the one of --label=NAME.
The result for people comes first; the last line on stdout is the result as JSON (alone with --json), log
probabilities in nats. Exit code 0 only if there is a result.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

# What gRPC would log repeats our own messages, in many lines. Set before it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from serving import program, query_bench, query_flags, query_generation_flags, query_server, query_texts
from serving.client import Client, ServerError

_FLAG_MODULES = ("serving.query_flags", "serving.query_generation_flags")
_COMMANDS = (*query_texts.QUESTIONS, *query_server.COMMANDS, "bench")


def main(arguments: Sequence[str]) -> None:
    """Carry out one command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not have all of a model's characters
    command, *loads = arguments or [""]
    if command not in _COMMANDS or len(loads) != (command == "bench"):
        got = " ".join(arguments) or "nothing"
        raise program.UsageError(f"expected one command out of {', '.join(_COMMANDS)}; got {got}")
    if loads and loads[0] not in query_bench.CALLS:
        raise program.UsageError(f"bench takes one of {', '.join(query_bench.CALLS)}; got {loads[0]}")
    connection = query_flags.connection()
    try:
        with Client(**query_flags.model(), **vars(connection)) as client:
            if loads:
                query_bench.measure(client, connection, loads[0])
            elif command in query_texts.QUESTIONS:
                query_texts.ask(client, query_texts.QUESTIONS[command])
            else:
                query_server.COMMANDS[command](client)
    except ServerError as error:
        raise program.UserError(str(error)) from error


def run() -> None:
    """The program."""
    query_flags.define_flags()
    query_generation_flags.define_flags()
    program.run("zoo-query", main, __doc__ or "", _FLAG_MODULES)
