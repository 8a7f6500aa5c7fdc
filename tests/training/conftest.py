"""Training runs of the bigram model, which take a second."""

import gzip
import json

import numpy as np
import pytest
from tiny import SpoiledModel

from zoo.model_directory import read_tensors
from zoo.models import TASKS


@pytest.fixture
def bigram(monkeypatch):
    """Makes the language model of all programs in this process a bigram model."""
    monkeypatch.setitem(TASKS, "language_model", SpoiledModel)


@pytest.fixture(scope="session")
def outcome():
    """What a run has left in its model directory: all of its last checkpoint, best weights, metrics."""

    def read(model_dir):
        results = {"metrics": (model_dir / "metrics.jsonl").read_text().splitlines()}
        last = max((model_dir / "checkpoints").glob("step-*.safetensors"))
        for path in (last, model_dir / "best" / "weights.safetensors"):
            tensors, metadata = read_tensors(path)
            results[path.name] = {name: (array.shape, array.tobytes()) for name, array in tensors.items()}
            results[f"{path.name} metadata"] = metadata
            assert all(np.isfinite(array).all() for array in tensors.values())
        assert results["metrics"] == [
            json.dumps(entry) for entry in results[f"{last.name} metadata"]["history"]
        ]
        return results

    return read


@pytest.fixture
def write(tmp_path):
    """Writes a file below the test's folder, creating folders; returns its path."""

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(path)

    return write
