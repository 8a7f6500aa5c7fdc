"""A TensorFlow Lite model answers like the functions that it was made of."""

import concurrent.futures

import grpc
import numpy as np
import pytest
import tensorflow as tf

from serving.rpc import StatusError
from serving.tflite_model import TfLiteModel

STRINGS = [b"a\0", b"\xff", b"", "ö".encode()]


class Doubled(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32), tf.TensorSpec([None], tf.string)])
    def rows(self, x, text):
        return {"y": 2.0 * x, "sums": x @ tf.ones([2, 3]), "text": text}

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])
    def number(self, n):
        return {"more": n + 1, "many": n > 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tflite")
    module = Doubled()
    names = {"serving_default": module.rows, "number": module.number}
    tf.saved_model.save(module, str(folder), signatures=names)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=list(names))
    (folder / "model.tflite").write_bytes(converter.convert())
    return folder


@pytest.fixture(scope="module")
def model(folder):
    model = TfLiteModel(str(folder))
    yield model
    model.close()


def run(model, name, outputs, **inputs):
    signature = model.signatures[name]
    feeds = [np.asarray(inputs[alias]) for alias in signature.input_tensors]
    return dict(zip(outputs, model.run(signature, feeds, outputs), strict=True))


@pytest.mark.parametrize("rows", [1, 4, 2, 0])
def test_batches_of_any_size(model, rows):
    x = np.arange(2.0 * rows, dtype=np.float32).reshape(rows, 2)
    text = np.array(STRINGS[:rows], object)
    got = run(model, "serving_default", ["text", "y", "sums"], x=x, text=text)
    np.testing.assert_array_equal(got["y"], 2 * x)
    np.testing.assert_array_equal(got["sums"], np.repeat(x.sum(1, keepdims=True), 3, axis=1))
    assert got["text"].tolist() == STRINGS[:rows]
    assert got["y"].dtype == np.float32


def test_scalars(model):
    got = run(model, "number", ["many", "more"], n=np.array(4, np.int64))
    assert (got["many"].tolist(), got["more"].tolist()) == (True, 5)
    assert (got["many"].dtype, got["more"].dtype) == (np.bool_, np.int64)


def test_signatures(model):
    signature = model.signatures["serving_default"]
    assert list(signature.input_tensors) == ["text", "x"]
    assert list(signature.output_tensors) == ["sums", "text", "y"]
    assert (signature.input_dtypes, signature.is_batched) == ([np.dtype(object), np.dtype(np.float32)], True)
    assert not model.signatures["number"].is_batched
    proto = model.signature_protos["serving_default"]
    assert [dim.size for dim in proto.outputs["sums"].tensor_shape.dim] == [-1, 3]
    assert proto.method_name == "tensorflow/serving/predict"


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((1, 2)), "Expects arg[1] to be float but double is provided"),
        (np.ones((1, 5), np.float32), "Expects arg[1] to have shape [-1, 2] but [1, 5] is provided"),
        (np.ones(2, np.float32), "Expects arg[1] to have shape [-1, 2] but [2] is provided"),
    ],
)
def test_inputs_that_do_not_fit(model, x, message):
    with pytest.raises(StatusError) as raised:
        run(model, "serving_default", ["y"], x=x, text=np.array([b""], object))
    assert (raised.value.code, raised.value.message) == (grpc.StatusCode.INVALID_ARGUMENT, message)


def test_many_callers(model):
    def ask(number):
        x = np.full((1 + number % 3, 2), number, np.float32)
        text = np.array([b"x"] * len(x), object)
        got = run(model, "serving_default", ["y"], x=x, text=text)["y"]
        return got.shape == x.shape and (got == 2 * number).all()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))


@pytest.mark.parametrize("content", [b"junk", b"TFL3" * 100])
def test_damaged_files_take_nobody_down(tmp_path, content):
    (tmp_path / "model.tflite").write_bytes(content)
    with pytest.raises(StatusError, match=r"^model\.tflite is damaged: .*\S$") as raised:
        TfLiteModel(str(tmp_path))
    assert raised.value.code == grpc.StatusCode.INVALID_ARGUMENT


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(StatusError) as raised:
        TfLiteModel(str(tmp_path))
    assert (raised.value.code, raised.value.message) == (
        grpc.StatusCode.NOT_FOUND,
        "model.tflite: there is none",
    )
