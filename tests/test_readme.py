"""The README's commands and code run as they stand, on a model cut down to seconds of training."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serving import export, query
from training import evaluate, train

MODULES = {"zoo-train": train, "zoo-evaluate": evaluate, "zoo-export": export, "zoo-query": query}
README = Path(__file__).parent.parent / "README.md"
PORTS = ("8500", "8600", "8700", "8800", "8900")
SMALL = ["--max_steps=2", "--units=8", "--embedding_size=8"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[list[str]]:
    lines = "\n".join(blocks("sh")).splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("zoo-")]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess:
    program = str(Path(sys.executable).with_name(words[0]))
    return subprocess.run([program, *words[1:]], cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    (folder / "shakespeare.txt").write_text("To be, or not to be: that is the question.\n" * 200)
    (folder / "reviews.tsv").write_text("text\tlabel\n" + "A fine film.\tgood\nA dull one.\tbad\n" * 20)
    tokens = ["1\tDogs\t_\tNOUN" + "\t_" * 6, "2\tbark\t_\tVERB" + "\t_" * 6]
    (folder / "sentences.conllu").write_text(("\n".join(tokens) + "\n\n") * 20)
    return folder


@pytest.fixture(scope="module")
def ports():
    """A free port for each that the README names."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in PORTS]
        free = [str(probe.getsockname()[1]) for probe in probes]
    return dict(zip(PORTS, free, strict=True))


def test_every_program_is_shown():
    shown = {words[0] for words in commands()}
    assert shown == {"zoo-train", "zoo-evaluate", "zoo-export", "zoo-serve", "zoo-query"}


def test_make_targets_exist():
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE)
    makefile = (README.parent / "Makefile").read_text()
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


@pytest.mark.slow
def test_commands_run_in_order_and_then_the_code(folder, ports, run_program, monkeypatch):
    """Each program as a process once, and later in this one, which need not import TensorFlow again."""
    monkeypatch.chdir(folder)
    begun: set[str] = set()
    with contextlib.ExitStack() as servers:
        for words in commands():
            for port, free in ports.items():
                words = [word.replace(port, free) for word in words]
            if words[0] == "zoo-serve":
                servers.enter_context(serving(words, folder))
                continue
            words += SMALL if words[0] == "zoo-train" else []
            if words[0] in begun:
                code, out, err = run_program(MODULES[words[0]], *words[1:])
            else:
                done = run(words, folder)
                code, out, err = done.returncode, done.stdout, done.stderr
            begun.add(words[0])
            assert code == 0, f"{shlex.join(words)}: {err}"
            assert isinstance(json.loads(out.splitlines()[-1]), dict)
        for code in blocks("python"):
            for port, free in ports.items():
                code = code.replace(port, free)
            done = run([Path(sys.executable).name, "-c", code], folder)
            assert done.returncode == 0, done.stderr
            if "saved_model.load" in code:
                perplexities = done.stdout.splitlines()[0].strip("[]").split()
                assert len(perplexities) == 2
                assert all(float(value) > 1 for value in perplexities)


@contextlib.contextmanager
def serving(words, folder):
    program = str(Path(sys.executable).with_name(words[0]))
    with subprocess.Popen([program, *words[1:]], cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert f"--port={json.loads(server.stdout.readline())['port']}" in words
            yield
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=60) == 0
