"""From text to a served language model in one command: `make demo`.

Runs the zoo's programs one after the other, as a user would, and shows each command.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROMPTS = ("The ", "If the object ", "This statement ")


def main() -> None:
    """Train, evaluate, export, serve and query, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="rnn-zoo-") as folder:
        model_dir, base = f"{folder}/model", f"{folder}/export"
        _say("Training a character language model on the Python documentation (2 to 3 minutes)")
        trained = _run("zoo-train", "--preset=demo", "--dataset=python_docs", f"--output_dir={model_dir}")
        reached, unigram = trained["best"]["perplexity"], trained["baseline"]["perplexity"]
        _say(f"Validation perplexity {reached:.2f} per character; a unigram model's is {unigram:.2f}")
        _run("zoo-export", f"--model_dir={model_dir}", f"--export_base={base}")
        with _server(base) as address:
            where = (f"--server={address}", "--model=demo")
            _run("zoo-query", "score", *where, "--text=The result is a new list.")
            for seed, prompt in enumerate(PROMPTS):
                options = ("--max_new_tokens=120", "--temperature=0.6", "--top_p=0.95", f"--seed={seed}")
                answer = _run("zoo-query", "generate", *where, f"--prompt={prompt}", *options)
                print(f"\n    {prompt}{answer['text']}".replace("\n", "\n    "))
    _say(
        "Done. To try next, with the programs in .venv/bin:\n"
        "  zoo-train --preset=char_small --dataset=text:YOUR_FILE --output_dir=runs/mine\n"
        "  zoo-export --model_dir=runs/mine --export_base=runs/export\n"
        "  zoo-serve --model_name=mine --model_base_path=runs/export --port=8500\n"
        "  zoo-query generate --server=localhost:8500 --model=mine --prompt='Once ' --stream\n"
        "README.md has the rest."
    )


def _say(message: str) -> None:
    print(f"\n{message}", flush=True)


def _command(program: str, *arguments: str) -> list[str]:
    print(f"\n$ {shlex.join([program, *arguments])}", flush=True)
    return [str(Path(sys.executable).with_name(program)), *arguments]


def _run(program: str, *arguments: str) -> dict[str, Any]:
    """Run a program to its end, and give the JSON object of its last line."""
    done = subprocess.run(_command(program, *arguments), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    line = done.stdout.strip().splitlines()[-1]
    print(line, flush=True)
    return json.loads(line)


@contextmanager
def _server(base: str) -> Iterator[str]:
    """A model server on a free port, for as long as the context lasts; gives its address."""
    command = _command("zoo-serve", "--model_name=demo", f"--model_base_path={base}", "--port=0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                sys.exit("zoo-serve did not start")
            print(line.strip(), flush=True)
            yield f"127.0.0.1:{json.loads(line)['port']}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
