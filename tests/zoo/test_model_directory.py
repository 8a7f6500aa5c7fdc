"""Files of a model directory: whole or not at all, and the same when read again."""

import errno
import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest

from zoo import model_directory
from zoo.model_directory import (
    ModelDirectoryError,
    assign,
    load_model,
    read_tensors,
    tensors_of,
    write_file,
    write_tensors,
)

ARRAYS = {
    "scalar": np.float32(1.5),
    "count": np.array(3, np.int64),
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "empty": np.zeros((0, 4), np.float32),
    "seeds": np.array([1, 2**32 - 1], np.uint32),
    "not finite": np.array([np.nan, np.inf]),
}


def test_tensors_are_read_as_they_were_written(tmp_path):
    metadata = {"step": 3, "history": [{"loss": 1.25}], "name": "a 'b' é", "nothing": None}
    path = tmp_path / "a" / "b.safetensors"
    write_tensors(path, ARRAYS, metadata)
    tensors, read = read_tensors(path)
    assert read == metadata
    assert set(tensors) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert tensors[name].shape == np.shape(array)
        assert tensors[name].dtype == array.dtype
        assert tensors[name].tobytes() == np.asarray(array).tobytes()


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch, failing):
    path = tmp_path / "file"
    write_file(path, b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(model_directory.os, failing, fail)
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_file(path, b"new")
    assert str(path) in str(raised.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_is_complete_on_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(number):
        order.append(Path(f"/proc/self/fd/{number}").resolve().read_bytes())
        fsync(number)

    def recorded_replace(source, target):
        order.append(Path(source).read_bytes())
        replace(source, target)

    monkeypatch.setattr(model_directory.os, "fsync", recorded_fsync)
    monkeypatch.setattr(model_directory.os, "replace", recorded_replace)
    write_file(tmp_path / "file", b"content")
    assert order == [b"content", b"content"]


def test_each_weight_has_a_name_of_its_own(trained):
    model = load_model(trained.model_dir)
    assert len(tensors_of(model.weights)) == len(model.weights)


def test_the_model_that_is_loaded_is_the_one_that_was_written(trained):
    model = load_model(trained.model_dir)
    tensors, _ = read_tensors(Path(trained.model_dir, "best/weights.safetensors"))
    assert {name: array.tolist() for name, array in tensors_of(model.weights).items()} == {
        name: array.tolist() for name, array in tensors.items()
    }
    vocabulary = json.loads(Path(trained.model_dir, "assets/vocabulary.json").read_text())
    assert [piece.decode() for piece in model.tokenizer.pieces] == vocabulary


def test_weights_of_another_model_are_refused():
    variable = keras.Variable(np.zeros((2, 3)), name="kernel")
    with pytest.raises(ModelDirectoryError, match=r"source has no kernel"):
        assign([variable], {}, Path("source"))
    with pytest.raises(ModelDirectoryError, match=r"kernel has shape \(3, 2\), expected \(2, 3\)"):
        assign([variable], {"kernel": np.zeros((3, 2))}, Path("source"))
    assign([variable], {"kernel": np.ones((2, 3))}, Path("source"))
    assert (variable.numpy() == 1).all()
