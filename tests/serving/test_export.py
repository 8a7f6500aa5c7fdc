"""Exports answer like the model in memory, however they are loaded, or are not there at all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tiny import DEADLINE, program_command

from serving import export
from serving.messages import prediction_log_pb2
from serving.program import UserError
from zoo.model_directory import load_model

# Of many lengths, with unknown characters, white space and nothing at all.
TEXTS = ["", "a", "red rose", "is of so", "a rose\nis red", "é語😀", "   \n\n ", "goes or " * 30, "~"]
COMPOSITIONS = [[4], [0], [7, 1], [1, 7], [8, 0, 3, 3], list(range(9)), list(reversed(range(9)))]
SIGNATURES = [
    *("beam", "contrastive", "embed", "generate", "generate_details", "score", "score_tokens"),
    *("serving_default", "start", "step"),
]


@pytest.fixture(scope="module")
def model(trained):
    return load_model(trained.model_dir)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return export.export(model, tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def graph_session(exported):
    """Runs signatures as the stock server does."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(exported))

    def run(name, inputs):
        signature = loaded.signature_def[name]
        feeds = {signature.inputs[key].name: value for key, value in inputs.items()}
        return session.run({key: info.name for key, info in signature.outputs.items()}, feeds)

    yield run
    session.close()


@pytest.fixture(scope="module")
def in_eager_mode(exported):
    signatures = tf.saved_model.load(str(exported)).signatures

    def run(name, inputs):
        answer = signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
        return {key: value.numpy() for key, value in answer.items()}

    return run


@pytest.fixture(scope="module")
def in_memory(model):
    functions = model.signatures()

    def run(name, inputs):
        answer = functions[name](**{key: tf.constant(value) for key, value in inputs.items()})
        return {key: value.numpy() for key, value in answer.items()}

    return run


class TestAnswers:
    @pytest.mark.parametrize("loaded", ["graph_session", "in_eager_mode", "in_memory"])
    @pytest.mark.slow
    def test_to_score_are_the_same_in_any_company(self, request, model, loaded):
        """Each text's log-probability is that of its characters in NumPy, one after the other."""
        run = request.getfixturevalue(loaded)
        alone = [model_score(model, text) for text in TEXTS]
        for rows in COMPOSITIONS:
            got = run("score", {"text": [TEXTS[row] for row in rows]})
            assert got["num_tokens"].tolist() == [len(TEXTS[row]) for row in rows]
            np.testing.assert_allclose(got["log_prob"], [alone[row] for row in rows], rtol=2e-5, atol=1e-5)
            expected = [np.exp(-alone[row] / max(len(TEXTS[row]), 1)) for row in rows]
            np.testing.assert_allclose(got["perplexity"], expected, rtol=2e-5)

    def test_to_generate_are_the_same_in_any_company(self, graph_session, in_eager_mode, in_memory):
        def generate(run, rows):
            return run(
                "generate",
                {
                    "prompt": [TEXTS[row] for row in rows],
                    "max_new_tokens": np.array([3 + row for row in rows], np.int32),
                    "temperature": np.array([row % 3 / 2 for row in rows], np.float32),
                    "top_k": np.array([row % 4 for row in rows], np.int32),
                    "top_p": np.array([1 - row / 20 for row in rows], np.float32),
                    "seed": np.array([[row, 5] for row in rows], np.int32),
                },
            )

        alone = [generate(in_memory, [row]) for row in range(len(TEXTS))]
        assert [answer["num_tokens"][0] for answer in alone] == [3 + row for row in range(len(TEXTS))]
        for run in (graph_session, in_eager_mode):
            for rows in COMPOSITIONS:
                got = generate(run, rows)
                assert got["text"].tolist() == [alone[row]["text"][0] for row in rows]
                expected = [alone[row]["log_prob"][0] for row in rows]
                np.testing.assert_allclose(got["log_prob"], expected, rtol=1e-4, atol=1e-5)

    def test_to_start_and_step_add_up_to_generate(self, graph_session):
        settings = {
            "temperature": np.zeros(1, np.float32),
            "top_k": np.zeros(1, np.int32),
            "top_p": np.ones(1, np.float32),
        }
        whole = graph_session(
            "generate",
            {
                "prompt": TEXTS,
                "max_new_tokens": np.array([12], np.int32),
                "seed": np.array([[1, 1]], np.int32),
                **settings,
            },
        )
        state = graph_session("start", {"prompt": TEXTS})["state"]
        pieces, log_prob = [b""] * len(TEXTS), 0
        for _ in range(12):
            seed = np.array([[1, 1]], np.int32)
            answer = graph_session("step", {"state": state, "seed": seed, **settings})
            state = answer["state"]
            pieces = [text + piece for text, piece in zip(pieces, answer["token"], strict=True)]
            log_prob = log_prob + answer["log_prob"]
        assert pieces == whole["text"].tolist()
        np.testing.assert_allclose(log_prob, whole["log_prob"], rtol=1e-4)

    def test_come_with_defaults_for_what_a_server_is_not_told(self, exported, graph_session):
        saved = saved_model_pb2.SavedModel.FromString((exported / "saved_model.pb").read_bytes())
        signatures = saved.meta_graphs[0].signature_def
        assert {"generate", "serving_default", "score", "start", "step"} <= set(signatures)
        defaults = {
            name: tf.make_ndarray(value).tolist() for name, value in signatures["generate"].defaults.items()
        }
        assert defaults == {
            "max_new_tokens": [100],
            "temperature": [1.0],
            "top_k": [0],
            "top_p": [1.0],
            "seed": [[-1, -1]],
            "min_p": [0.0],
            "typical_p": [1.0],
            "repetition_penalty": [1.0],
            "stop": [[b""]],
            "bad_words": [[b""]],
        }
        assert set(signatures["generate"].inputs) == {"prompt", *defaults}
        first, second = (graph_session("generate", {"prompt": ["a", "a"], **defaults}) for _ in range(2))
        assert first["num_tokens"].tolist() == [100, 100]
        texts = [*first["text"].tolist(), *second["text"].tolist()]
        assert len(set(texts)) == 4  # a fresh seed for each

    def test_inputs_that_came_later_may_be_left_out_however_it_is_loaded(
        self, exported, graph_session, in_eager_mode
    ):
        """In Python a signature has none of them, and the function of the same name has all."""
        older = {"prompt": ["a"], "max_new_tokens": [20], "temperature": [1.0], "top_k": [0], "top_p": [1.0]}
        older["seed"] = [[1, 2]]
        expected = graph_session("generate", older)
        for run in (graph_session, in_eager_mode):
            for name in ("generate", "serving_default"):
                assert run(name, older)["text"] == expected["text"]
        state = graph_session("start", {"prompt": ["a"]})["state"]
        given = {"state": state, **{name: older[name] for name in ("temperature", "top_k", "top_p", "seed")}}
        tokens = [run("step", given)["token"] for run in (graph_session, in_eager_mode)]
        assert tokens[0] == tokens[1]

        stop = expected["text"][0][5:7]
        stopped = graph_session("generate", {**older, "stop": [[stop]]})["text"]
        assert stopped == expected["text"][0].split(stop)[0]
        loaded = tf.saved_model.load(str(exported))
        given = {name: tf.constant(value) for name, value in older.items()}
        assert loaded.generate(**given, stop=tf.constant([[stop]]))["text"].numpy() == stopped

    def test_optional_inputs_may_be_left_out_in_a_graph_session(self, graph_session):
        assert graph_session("generate", {"prompt": ["a", "b"]})["num_tokens"].tolist() == [100, 100]

    @pytest.mark.parametrize(("limit", "tokens"), [(0, 0), (1, 1)])
    def test_of_no_or_one_new_token(self, graph_session, limit, tokens):
        inputs = {"prompt": ["a"], "max_new_tokens": [limit], "temperature": [0.0], "top_k": [0]}
        got = graph_session("generate", {**inputs, "top_p": [1.0], "seed": [[1, 1]]})
        assert (got["num_tokens"][0], len(got["text"][0])) == (tokens, tokens)

    @pytest.mark.parametrize("limit", [-1, 4097, 2**31 - 1])
    def test_of_more_tokens_than_allowed_name_the_limit(self, graph_session, limit):
        inputs = {"prompt": ["a"], "max_new_tokens": [limit], "temperature": [0.0], "top_k": [0]}
        with pytest.raises(tf.errors.InvalidArgumentError, match="max_new_tokens must be between 0 and 4096"):
            graph_session("generate", {**inputs, "top_p": [1.0], "seed": [[1, 1]]})


def model_score(model, text):
    """The log-probability of a text, read one character after the other with Keras's own LSTM equations."""
    weights = {weight.path: weight.numpy().astype(float) for weight in model.weights}
    named = {path.rsplit("/", 1)[-1]: value for path, value in weights.items() if "lstm" in path}
    embedding = weights["embedding/embeddings"]
    hidden = cell_state = np.zeros(embedding.shape[1])
    previous, log_prob = model.tokenizer.boundary_id, 0.0
    ids = {piece.decode(): index for index, piece in enumerate(model.tokenizer.pieces)}
    for character in text:
        gates = embedding[previous] @ named["input_kernel"] + hidden @ named["recurrent_kernel"]
        gates = dict(zip(model.stack.cells[0].GATES, np.split(gates + named["bias"], 4), strict=True))
        sigmoid = {name: 1 / (1 + np.exp(-value)) for name, value in gates.items()}
        cell_state = sigmoid["forget"] * cell_state + sigmoid["input"] * np.tanh(gates["candidate"])
        hidden = sigmoid["output"] * np.tanh(cell_state)
        logits = weights["head/output_embedding"] @ hidden + weights["head/bias"]
        previous = ids.get(character, 0)
        log_prob += logits[previous] - np.log(np.exp(logits).sum())
    return log_prob


class TestWarmUpRequests:
    @pytest.fixture
    def requests(self, exported):
        """By signature, as TensorFlow reads them."""
        path = exported / "assets.extra" / "tf_serving_warmup_requests"
        records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
        logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
        return {log.predict_log.request.model_spec.signature_name: log.predict_log.request for log in logs}

    def test_are_the_model_s_own_for_every_signature(self, requests, model):
        assert sorted(requests) == SIGNATURES
        signatures = model.signatures()
        for name, inputs in model.requests().items():
            sent = {key: tf.make_ndarray(proto) for key, proto in requests[name].inputs.items()}
            assert set(sent) == set(inputs)
            specs = signatures[name].get_concrete_function().structured_input_signature[0]
            for key, dtype in ((spec.name, spec.dtype) for spec in specs if spec.name in inputs):
                assert sent[key].dtype == dtype.as_numpy_dtype
                assert sent[key].tolist() == tf.constant(inputs[key], dtype).numpy().tolist()

    def test_can_be_run(self, requests, exported, graph_session):
        saved = saved_model_pb2.SavedModel.FromString((exported / "saved_model.pb").read_bytes())
        signatures = saved.meta_graphs[0].signature_def
        for name, request in requests.items():
            inputs = {key: tf.make_ndarray(proto) for key, proto in request.inputs.items()}
            defaults = signatures[name].defaults.items()
            inputs = {key: tf.make_ndarray(value) for key, value in defaults} | inputs
            assert set(graph_session(name, inputs)) == set(signatures[name].outputs)

    @pytest.mark.slow
    def test_are_few_and_short(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr(export, "MAX_WARMUP_BYTES", 200)
        folder = export.export(model, tmp_path)
        path = folder / "assets.extra" / "tf_serving_warmup_requests"
        assert 0 < path.stat().st_size < 300


class TestProgram:
    @pytest.fixture
    def complaint(self, run_program, trained):
        def run(*flags, model_dir=trained.model_dir):
            code, out, err = run_program(export, f"--model_dir={model_dir}", *flags)
            assert (code, out) == (1, "")
            *progress, last = err.splitlines()
            assert progress in ([], ["writing and verifying"])
            assert last.startswith("zoo-export: ")
            return last

        return run

    @pytest.mark.slow
    def test_says_what_it_wrote(self, run_program, trained, tmp_path):
        code, out, _ = run_program(export, f"--model_dir={trained.model_dir}", f"--export_base={tmp_path}")
        assert code == 0
        assert json.loads(out.splitlines()[-1]) == {
            "path": str(tmp_path / "1"),
            "version": 1,
            "signatures": SIGNATURES,
        }
        assert (tmp_path / "1" / "saved_model.pb").exists()
        assert os.listdir(tmp_path) == ["1"]

    def test_counts_versions_up(self, run_program, trained, tmp_path, monkeypatch):
        monkeypatch.setattr(export, "write_saved_model", lambda model, folder, *_: folder.mkdir())
        monkeypatch.setattr(export, "verify", lambda *_: None)
        base = tmp_path / "deep" / "base"
        for number in ("note", "7x", ".9.1.partial", "007"):
            (base / number).mkdir(parents=True)
        flags = (f"--model_dir={trained.model_dir}", f"--export_base={base}")
        for given, version in (((), 8), ((), 9), (("--version=3",), 3), ((), 10)):
            code, out, _ = run_program(export, *flags, *given)
            assert code == 0
            line = json.loads(out.splitlines()[-1])
            assert (line["version"], line["path"]) == (version, str(base / str(version)))
            assert (base / str(version)).is_dir()

    def test_an_existing_version_stays_as_it_is(self, complaint, tmp_path):
        (tmp_path / "5").mkdir()
        (tmp_path / "5" / "precious").touch()
        message = complaint(f"--export_base={tmp_path}", "--version=5")
        assert f"{tmp_path / '5'} exists already; leave out --version" in message
        assert os.listdir(tmp_path) == ["5"]
        assert os.listdir(tmp_path / "5") == ["precious"]

    def test_needs_both_folders(self, complaint, tmp_path):
        assert "--export_base is needed" in complaint()
        assert "--model_dir is needed" in complaint(f"--export_base={tmp_path}", model_dir="")
        assert "is no model directory" in complaint(f"--export_base={tmp_path}", model_dir=tmp_path)

    def test_a_folder_that_cannot_be_written(self, complaint, tmp_path):
        (tmp_path / "file").touch()
        for base in (tmp_path / "file", tmp_path / "file" / "base", Path("/proc/nowhere")):
            assert str(base) in complaint(f"--export_base={base}")

    @pytest.mark.slow
    def test_ctrl_c_leaves_nothing_behind(self, run_program, trained, tmp_path, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(export, "verify", interrupted)
        flags = (f"--model_dir={trained.model_dir}", f"--export_base={tmp_path}")
        code, out, err = run_program(export, *flags)
        assert (code, out, err.splitlines()[-1]) == (130, "", "zoo-export: interrupted")
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("wrong", ["weights", "signature", "cut"])
@pytest.mark.slow
def test_a_wrong_export_is_found_and_leaves_nothing_behind(trained, tmp_path, monkeypatch, wrong):
    model = load_model(trained.model_dir)
    write = export.write_saved_model

    def spoiled(model, folder):
        if wrong == "weights":
            bias = model.head.bias.numpy()
            model.head.bias.assign(bias + np.linspace(0, 0.1, len(bias)))
            write(model, folder)
            model.head.bias.assign(bias)
        elif wrong == "signature":
            signatures = model.signatures
            model.signatures = lambda: {**signatures(), "score": shifted(signatures()["score"])}
            write(model, folder)
            model.signatures = signatures
        else:
            write(model, folder)
            os.truncate(next((folder / "variables").glob("*.data*")), 100)

    def shifted(score):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def wrong_score(text):
            answer = score(text)
            return {**answer, "num_tokens": answer["num_tokens"] + 1}

        return wrong_score

    monkeypatch.setattr(export, "write_saved_model", spoiled)
    expected = {"weights": "log_prob", "signature": "num_tokens", "cut": "could not be written"}[wrong]
    with pytest.raises(UserError, match=expected):
        export.export(model, tmp_path)
    assert os.listdir(tmp_path) == []


SMALL_DISK = """
import resource
from absl import flags
from serving import program
for limit in (1_000, 60_000):  # less than the weights, less than the graph
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        program.zoo_export()
    except SystemExit as stop:
        assert stop.code == 1
    for name in ("model_dir", "export_base", "version"):
        delattr(flags.FLAGS, name)  # to be defined again
"""


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_behind(trained, tmp_path):
    flags = (f"--model_dir={trained.model_dir}", f"--export_base={tmp_path}")
    done = subprocess.run(
        [sys.executable, "-c", SMALL_DISK, *flags],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stdout) == (0, "")
    complaints = [line for line in done.stderr.splitlines() if line.startswith("zoo-export: ")]
    assert len(complaints) == 2
    for complaint in complaints:
        assert complaint.startswith(f"zoo-export: {tmp_path / '1'} could not be written: ")
        assert "File too large" in complaint
    assert ("variables" in complaints[0], "saved_model.pb" in complaints[1]) == (True, True)
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_ctrl_c_while_exporting(trained, tmp_path):
    base = tmp_path / "base"
    flags = (f"--model_dir={trained.model_dir}", f"--export_base={base}")
    process = subprocess.Popen(
        program_command("zoo_export", *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + DEADLINE
    while not (base.exists() and os.listdir(base)):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "zoo-export: interrupted"
    assert "Traceback" not in err
    assert os.listdir(base) == []
