"""What the tests of all packages share."""

from __future__ import annotations

import copy
import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from absl import flags

# A script's background job ignores Ctrl-C, and so would the programs that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def randomize() -> Callable:
    """Gives all weights of a layer new values, biases too; deterministic."""
    from cases import randomize

    return randomize


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> SimpleNamespace:
    """A model of eight units after 24 steps: its `config`, `model_dir`, and the `result` of its training."""
    from tiny import tiny

    from training.train import train

    config = tiny(tmp_path_factory.mktemp("trained"), test_fraction=0.1, learning_rate=0.02)
    return SimpleNamespace(config=config, model_dir=config.output_dir, result=train(config))


@pytest.fixture
def run_program(monkeypatch, capsys) -> Callable:
    """Runs a program of the zoo in this process, given its module; gives exit code, stdout and stderr.

    Programs define their flags when they run; those of one are taken back before the next.
    """

    def run(module, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", [module.__name__, *arguments])
        values = flags.FLAGS.__dict__
        saved = {name: copy.copy(value) for name, value in values.items()}
        capsys.readouterr()
        try:
            module.run()
            code = 0
        except SystemExit as stop:
            code = stop.code
        finally:
            values.clear()
            values.update(saved)
        return (code, *capsys.readouterr())

    return run
