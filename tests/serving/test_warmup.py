"""Requests that a version brings along run before anybody else's; and the files that hold them."""

import struct

import grpc
import numpy as np
import pytest
import tensorflow as tf

from serving import prediction, tensors, tfrecord, warmup
from serving.messages import input_pb2, predict_pb2, prediction_log_pb2
from serving.repository import LoadPolicy, Repository
from serving.rpc import StatusError
from serving.saved_model import SavedModel
from serving.versions import State
from serving.warmup import WarmUp

DEADLINE = 60.0
CODES = grpc.StatusCode


def predict_request(signature="serving_default", **inputs):
    request = predict_pb2.PredictRequest(model_spec={"signature_name": signature})
    for alias, value in inputs.items():
        tensors.to_proto(value, request.inputs[alias])
    return request


def predict_log(number=0):
    request = predict_request(x=np.array([number], np.float32))
    return prediction_log_pb2.PredictionLog(predict_log={"request": request})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "assets.extra").mkdir()
    return tmp_path


def write(folder, records):
    """The warm-up file of a folder, written by TensorFlow."""
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record if isinstance(record, bytes) else record.SerializeToString())
    return path


class Replayed:
    """Notes what is replayed, and refuses requests of one signature; also how the warm-up ended."""

    def __init__(self, refused=None, **options):
        self.requests, self.ends = [], []
        self.refused = refused
        self.warm_up = WarmUp(self.replay, observe=lambda *end: self.ends.append(end), **options)

    def replay(self, servable, request):
        self.requests.append((servable, request))
        if self.refused is not None and request.inputs["x"].float_val[0] == self.refused:
            raise StatusError(CODES.FAILED_PRECONDITION, "no such signature")

    def error(self, folder):
        with pytest.raises(StatusError) as raised:
            self.warm_up("servable", str(folder))
        return raised.value.code, raised.value.message


class TestRecordFiles:
    RECORDS = (b"", b"a", bytes(range(256)) * 20, b"\0" * 7)

    def test_are_read_as_tensorflow_writes_them(self, tmp_path):
        with tf.io.TFRecordWriter(str(tmp_path / "file")) as writer:
            for record in self.RECORDS:
                writer.write(record)
        assert list(tfrecord.read_records(tmp_path / "file")) == list(self.RECORDS)

    def test_are_written_as_tensorflow_reads_them(self, tmp_path):
        with open(tmp_path / "file", "wb") as file:
            tfrecord.write_records(file, self.RECORDS)
        read = tf.data.TFRecordDataset(str(tmp_path / "file"))
        assert list(read.as_numpy_iterator()) == list(self.RECORDS)

    @pytest.mark.parametrize(
        ("data", "checksum"),
        [  # RFC 3720, B.4, and the usual check value
            (bytes(32), 0x8A9136AA),
            (b"\xff" * 32, 0x62A8AB43),
            (bytes(range(32)), 0x46DD794E),
            (b"123456789", 0xE3069283),
        ],
    )
    def test_have_checksums(self, data, checksum):
        assert tfrecord.crc32c(data) == checksum

    def test_of_which_any_byte_is_wrong(self, tmp_path):
        path = tmp_path / "file"
        with open(path, "wb") as file:
            tfrecord.write_records(file, [b"abc", b"defg"])
        whole = path.read_bytes()
        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            with pytest.raises(tfrecord.CorruptedError, match=f"at {0 if place < 19 else 19}$"):
                list(tfrecord.read_records(path))

    def test_that_end_too_early(self, tmp_path):
        path = tmp_path / "file"
        with open(path, "wb") as file:
            tfrecord.write_records(file, [b"abc", b"defg"])
        whole = path.read_bytes()
        for size in set(range(len(whole))) - {0, 19}:
            path.write_bytes(whole[:size])
            with pytest.raises(tfrecord.CorruptedError, match=r"^truncated record at (0|19)$"):
                list(tfrecord.read_records(path))

    def test_that_claim_to_be_longer_than_any_memory(self, tmp_path):
        length = struct.pack("<Q", 2**63)
        path = tmp_path / "file"
        path.write_bytes(length + struct.pack("<I", tfrecord.masked_crc32c(length)) + b"abc")
        with pytest.raises(tfrecord.CorruptedError, match=r"^truncated record at 0$"):
            list(tfrecord.read_records(path))


class TestReplay:
    def test_of_every_kind_in_order(self, folder):
        examples = input_pb2.Input(example_list={"examples": [{}]})
        logs = [
            predict_log(),
            prediction_log_pb2.PredictionLog(classify_log={"request": {"input": examples}}),
            prediction_log_pb2.PredictionLog(),  # which says nothing
            prediction_log_pb2.PredictionLog(regress_log={"request": {"input": examples}}),
            prediction_log_pb2.PredictionLog(multi_inference_log={"request": {"input": examples}}),
        ]
        write(folder, logs)
        replayed = Replayed()
        replayed.warm_up("servable", str(folder))
        assert replayed.requests == [
            ("servable", logs[0].predict_log.request),
            ("servable", logs[1].classify_log.request),
            ("servable", logs[3].regress_log.request),
            ("servable", logs[4].multi_inference_log.request),
        ]
        ((path, status, seconds, records),) = replayed.ends
        assert (path, status, records) == (str(folder), "OK", 5)
        assert seconds >= 0

    def test_again_and_again(self, folder):
        write(folder, [predict_log(0), predict_log(1)])
        replayed = Replayed(iterations=3)
        replayed.warm_up("servable", str(folder))
        assert [request.inputs["x"].float_val[0] for _, request in replayed.requests] == [0, 0, 0, 1, 1, 1]

    def test_of_nothing(self, tmp_path):
        replayed = Replayed()
        replayed.warm_up("servable", str(tmp_path))
        assert (replayed.requests, replayed.ends) == ([], [])

    def test_stops_at_a_request_that_fails(self, folder):
        write(folder, [predict_log(0), predict_log(7), predict_log(8)])
        replayed = Replayed(refused=7)
        assert replayed.error(folder) == (
            CODES.FAILED_PRECONDITION,
            "warmup record 1 failed: no such signature",
        )
        assert len(replayed.requests) == 2
        assert [end[1::2] for end in replayed.ends] == [("FAILED_PRECONDITION", 1)]

    def test_names_the_record_whatever_goes_wrong(self, folder):
        write(folder, [predict_log(0)])

        def replay(servable, request):
            raise ZeroDivisionError("division by zero")

        with pytest.raises(StatusError, match=r"^warmup record 0 failed: division by zero$"):
            WarmUp(replay)("servable", str(folder))

    @pytest.mark.parametrize(("kind", "number"), [("session_run_log", 5), ("predict_streamed_log", 7)])
    def test_of_what_cannot_be_replayed(self, folder, kind, number):
        write(folder, [predict_log(), prediction_log_pb2.PredictionLog(**{kind: {}})])
        assert Replayed().error(folder) == (
            CODES.UNIMPLEMENTED,
            f"Unsupported log_type for warmup: {number} (record 1)",
        )

    def test_of_a_record_that_is_no_log(self, folder):
        path = write(folder, [predict_log(), b"\xff"])
        assert Replayed().error(folder) == (
            CODES.INVALID_ARGUMENT,
            f"Failed to parse warmup record: 1 from {path}",
        )

    def test_of_a_damaged_file(self, folder):
        path = write(folder, [predict_log()])
        whole = path.read_bytes()
        path.write_bytes(whole[:20] + b"~" + whole[21:])
        replayed = Replayed()
        assert replayed.error(folder) == (
            CODES.DATA_LOSS,
            f"corrupted record at 0. Please verify your warmup data is in TFRecord format. ({path})",
        )
        assert [end[1::2] for end in replayed.ends] == [("DATA_LOSS", 0)]

    def test_of_too_many_records(self, folder):
        write(folder, [predict_log()] * 1000)
        replayed = Replayed()
        replayed.warm_up("servable", str(folder))
        assert len(replayed.requests) == 1000
        path = write(folder, [predict_log()] * 1001)
        assert Replayed().error(folder) == (
            CODES.INVALID_ARGUMENT,
            f"Number of warmup records exceeds the maximum (1000) at {path}",
        )


def test_written_requests_are_read_by_tensorflow(tmp_path):
    requests = [
        predict_request(x=np.ones(2, np.float32)),
        predict_request("other", text=np.array([b"a"], object)),
    ]
    warmup.write_requests(tmp_path, requests)
    path = str(tmp_path / "assets.extra" / "tf_serving_warmup_requests")
    logs = map(prediction_log_pb2.PredictionLog.FromString, tf.data.TFRecordDataset(path).as_numpy_iterator())
    assert [log.predict_log.request for log in logs] == requests


def replay(servable, request):
    """Runs a PredictRequest, as little as it takes."""
    signature = servable.signatures[request.model_spec.signature_name]
    feeds = prediction.bind_inputs(signature, request.inputs)
    servable.run(signature, feeds, prediction.select_outputs(signature, request.output_filter))


def test_a_saved_model_is_warm_before_it_answers(publish, exports, tmp_path, make_spec):
    version = publish(exports["first"], tmp_path / "base", 1)
    warmup.write_requests(version, [predict_request(x=np.ones(3, np.float32))])
    repository = Repository(
        [("model", str(tmp_path / "base"))], SavedModel, LoadPolicy(0.01, 0), warm_up=WarmUp(replay)
    )
    repository.start()
    assert repository.wait_until_settled(DEADLINE)
    with repository.lease(make_spec()) as leased:
        assert list(leased.servable._callables) == [("serving_default", ("x_again", "y"))]
    assert repository.close()


def test_a_saved_model_that_cannot_be_warmed_up_is_not_served(publish, exports, tmp_path, eventually):
    publish(exports["first"], tmp_path / "base", 1)
    repository = Repository(
        [("model", str(tmp_path / "base"))], SavedModel, LoadPolicy(0.01, 0), warm_up=WarmUp(replay)
    )
    repository.start()
    eventually(repository.all_available)
    beside = publish(exports["second"], tmp_path / "beside", 2)
    warmup.write_requests(
        beside, [predict_request(x=np.ones(3, np.float32)), predict_request(x=np.ones(3, np.float64))]
    )
    beside.rename(tmp_path / "base" / "2")
    eventually(
        lambda: [state for _, state, _ in repository.versions("model")] == [State.END, State.AVAILABLE]
    )
    _, _, error = repository.versions("model")[0]
    assert error.code == CODES.INVALID_ARGUMENT
    assert error.message == "warmup record 1 failed: Expects arg[1] to be float but double is provided"
    assert repository.close()
