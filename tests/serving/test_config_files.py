"""The stock server's configuration files, good and bad."""

import grpc
import pytest
from google.protobuf import descriptor_pb2
from named_servables import DEADLINE, Loader

from serving import config_files, config_messages
from serving.batching import BatchingOptions
from serving.config_files import Tls
from serving.config_polling import ModelConfigPoller
from serving.model_config import ModelConfig, VersionPolicy
from serving.program import UserError
from serving.repository import LoadPolicy, Repository
from serving.rpc import StatusError

# As TensorFlow Serving's .proto files have them.
FIELDS = {
    "SSLConfig": [
        ("server_key", 1, "TYPE_STRING", None),
        ("server_cert", 2, "TYPE_STRING", None),
        ("custom_ca", 3, "TYPE_STRING", None),
        ("client_verify", 4, "TYPE_BOOL", None),
    ],
    "PrometheusConfig": [("enable", 1, "TYPE_BOOL", None), ("path", 2, "TYPE_STRING", None)],
    "MonitoringConfig": [
        ("prometheus_config", 1, "TYPE_MESSAGE", "tensorflow.serving.PrometheusConfig"),
    ],
    "BatchingParameters": [
        ("max_batch_size", 1, "TYPE_MESSAGE", "google.protobuf.Int64Value"),
        ("batch_timeout_micros", 2, "TYPE_MESSAGE", "google.protobuf.Int64Value"),
        ("max_enqueued_batches", 3, "TYPE_MESSAGE", "google.protobuf.Int64Value"),
        ("num_batch_threads", 4, "TYPE_MESSAGE", "google.protobuf.Int64Value"),
        ("thread_pool_name", 5, "TYPE_MESSAGE", "google.protobuf.StringValue"),
        ("allowed_batch_sizes", 6, "TYPE_INT64", None),
        ("pad_variable_length_inputs", 7, "TYPE_BOOL", None),
        ("enable_large_batch_splitting", 8, "TYPE_MESSAGE", "google.protobuf.BoolValue"),
        ("max_execution_batch_size", 9, "TYPE_MESSAGE", "google.protobuf.Int64Value"),
    ],
}


@pytest.mark.parametrize("name", FIELDS)
def test_messages(name):
    descriptor = getattr(config_messages, name).DESCRIPTOR
    assert descriptor.full_name == f"tensorflow.serving.{name}"
    described = descriptor_pb2.DescriptorProto()
    descriptor.CopyToProto(described)
    types = descriptor_pb2.FieldDescriptorProto.Type
    assert [
        (field.name, field.number, types.Name(field.type), field.type_name.lstrip(".") or None)
        for field in described.field
    ] == FIELDS[name]
    repeated = [
        field.name
        for field in described.field
        if field.label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    ]
    assert repeated == (["allowed_batch_sizes"] if name == "BatchingParameters" else [])


@pytest.fixture
def write(tmp_path):
    def write(text, name="file"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def complaint(read, path):
    with pytest.raises(UserError) as raised:
        read(path)
    message = str(raised.value)
    assert "\n" not in message
    return message


class TestModels:
    def test_are_read(self, write):
        path = write(
            """
            # Two models.
            model_config_list {
              config {
                name: "a"
                base_path: "/models/a"
                model_platform: "tensorflow"
                model_version_policy { specific { versions: 1 versions: 2 } }
                version_labels { key: "stable" value: 1 }
              },
              config: { name: 'b', base_path: '/models/b', model_platform: 'tensorflow' }
            }
            """
        )
        assert config_files.read_models(path) == [
            ModelConfig("a", "/models/a", VersionPolicy(specific=frozenset([1, 2])), {"stable": 1}),
            ModelConfig("b", "/models/b"),
        ]

    @pytest.mark.parametrize("text", ["", "# nothing", "model_config_list {}"])
    def test_may_be_none(self, write, text):
        assert config_files.read_models(write(text)) == []

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            (
                'model_config_list {\n  config {\n    nam: "a"\n  }\n}',
                "Error parsing text-format tensorflow.serving.ModelServerConfig: 3:5: Message type "
                '"tensorflow.serving.ModelConfig" has no field named "nam".',
            ),
            (
                "model_config_list {",
                'Error parsing text-format tensorflow.serving.ModelServerConfig: 1:19: Expected "}".',
            ),
            (
                'custom_model_config { type_url: "x" }',
                "ModelServer does not yet support custom model config.",
            ),
            (
                'model_config_list { config { name: "a" base_path: "a" model_platform: "tensorflow" } }',
                "Expected model a to have an absolute path or URI; got base_path()=a",
            ),
            (b"\xff\xfe", "not a text file"),
        ],
    )
    def test_errors(self, write, text, problem):
        path = write(text)
        assert complaint(config_files.read_models, path) == f"{problem} (--model_config_file={path})"

    def test_files_that_cannot_be_read(self, tmp_path):
        for path, problem in (
            (tmp_path / "absent", "no such file or directory"),
            (tmp_path, "is a directory"),
        ):
            assert complaint(config_files.read_models, path) == f"{problem} (--model_config_file={path})"


class TestTls:
    def test_is_read(self, write):
        path = write('server_key: "KEY\\nKEY" server_cert: "CERT" custom_ca: "CA" client_verify: true')
        tls = config_files.read_tls(path)
        assert tls == Tls("KEY\nKEY", "CERT", "CA", True)
        assert "KEY" not in repr(tls)
        assert config_files.read_tls(write("server_key: 'k' server_cert: 'c'")) == Tls("k", "c", "", False)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("server_cert: 'c'", "server_key is missing"),
            ("server_key: 'SECRET'", "server_cert is missing"),
            (
                "server_key: 'SECRET' server_cert: 'c' client_verify: true",
                "client_verify needs a custom_ca to verify clients with",
            ),
            ("server_key: 'SECRET\nSECRET'", "Error parsing text-format tensorflow.serving.SSLConfig: 1:13"),
            ("server_key: SECRET", "Error parsing text-format tensorflow.serving.SSLConfig: 1:13"),
            ("SECRET", "Error parsing text-format tensorflow.serving.SSLConfig: 1:1"),
        ],
    )
    def test_errors_do_not_quote_the_file(self, write, text, problem):
        path = write(text)
        assert complaint(config_files.read_tls, path) == f"{problem} (--ssl_config_file={path})"


class TestMonitoring:
    @pytest.mark.parametrize(
        ("text", "path"),
        [
            ("", None),
            ("prometheus_config {}", None),
            ('prometheus_config { path: "/metrics" }', None),
            ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics"),
            ('prometheus_config { enable: true, path: "/metrics" }', "/metrics"),
        ],
    )
    def test_is_read(self, write, text, path):
        assert config_files.read_prometheus_path(write(text)) == path

    def test_errors(self, write):
        path = write("prometheus { enable: true }")
        assert complaint(config_files.read_prometheus_path, path) == (
            "Error parsing text-format tensorflow.serving.MonitoringConfig: 1:1: Message type "
            '"tensorflow.serving.MonitoringConfig" has no field named "prometheus". '
            f"(--monitoring_config_file={path})"
        )
        path = write('prometheus_config { enable: true path: "metrics" }')
        assert "it has to begin with /" in complaint(config_files.read_prometheus_path, path)


class TestBatching:
    def test_is_read(self, write):
        path = write(
            "max_batch_size { value: 128 } batch_timeout_micros { value: 1500 } "
            "max_enqueued_batches { value: 20 } num_batch_threads { value: 3 } "
            "allowed_batch_sizes: 8 allowed_batch_sizes: 128 thread_pool_name { value: 'x' }"
        )
        assert config_files.read_batching(path) == BatchingOptions(128, 0.0015, 20, 3, (8, 128))

    def test_has_defaults(self, write):
        assert config_files.read_batching(write("")) == BatchingOptions()
        assert config_files.read_batching(write("max_batch_size { value: 7 }")) == BatchingOptions(7)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("max_batch_size { value: 0 }", "max_batch_size is 0; it must be at least 1"),
            ("batch_timeout_micros { value: -1 }", "batch_timeout_micros is -1; it must be at least 0"),
            (
                "allowed_batch_sizes: 8 allowed_batch_sizes: 4 max_batch_size { value: 4 }",
                "allowed_batch_sizes are [8, 4]; they must be positive and increase",
            ),
            (
                "allowed_batch_sizes: 8 max_batch_size { value: 16 }",
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 8; expected 16",
            ),
            (
                "allowed_batch_sizes: 8",
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 8; "
                "expected 1000",
            ),
            (
                "max_batch_size: 8",
                "Error parsing text-format tensorflow.serving.BatchingParameters: 1:17: "
                "'max_batch_size: 8': Expected \"{\".",
            ),
        ],
    )
    def test_errors(self, write, text, problem):
        path = write(text, "batching_params.pbtxt")
        assert complaint(config_files.read_batching, path) == f"{problem} (--batching_parameters_file={path})"
        with pytest.raises(StatusError) as raised:
            config_files.read_model_batching(path.removesuffix("batching_params.pbtxt"))
        assert raised.value.code == grpc.StatusCode.INVALID_ARGUMENT
        assert raised.value.message == f"Invalid protobuf file: '{path}': {problem}"

    def test_of_a_version(self, write, tmp_path):
        assert config_files.read_model_batching(str(tmp_path)) is None
        write("max_batch_size { value: 7 }", "batching_params.pbtxt")
        assert config_files.read_model_batching(str(tmp_path)) == BatchingOptions(7)


class Followed:
    """A model config file and a repository that follows it."""

    def __init__(self, path, **policy):
        self.path, self.file = path, path / "models.config"
        self.loader = Loader()
        self.repository = Repository([], self.loader, LoadPolicy(0.005, 0, **policy))
        self.repository.start()
        self.poller = ModelConfigPoller(
            str(self.file), 0.005, self.repository.configure, self.repository.model_names
        )

    def write(self, *names, extra=""):
        for name in names:
            (self.path / name / "1").mkdir(parents=True, exist_ok=True)
        extra += ' model_platform: "tensorflow"'
        models = (f'config {{ name: "{name}" base_path: "{self.path / name}" {extra} }}' for name in names)
        self.file.write_text(f"model_config_list {{ {' '.join(models)} }}")

    def served(self):
        return self.repository.model_names()


@pytest.fixture
def followed(tmp_path):
    following = Followed(tmp_path)
    yield following
    following.poller.close()
    following.repository.close()


class TestFollowing:
    def test_good_broken_good(self, followed, caplog, make_spec):
        followed.write("a", "b")
        followed.poller.poll()
        assert followed.repository.wait_until_settled(DEADLINE)
        followed.file.write_text("model_config_list { config { nam")
        for _ in range(3):
            followed.poller.poll()
        (error,) = (record for record in caplog.records if record.levelname == "ERROR")  # said once
        assert error.getMessage() == (
            "the configuration stays as it was: Error parsing text-format "
            'tensorflow.serving.ModelServerConfig: 1:30: Message type "tensorflow.serving.ModelConfig" has '
            f'no field named "nam". ({followed.file})'
        )
        assert followed.served() == ["a", "b"]
        with followed.repository.lease(make_spec("a")) as version:
            followed.write("b", "c")
            followed.poller.poll()
            assert followed.served() == ["b", "c"]
            assert not version.servable.closed.is_set()
        assert followed.repository.wait_until_settled(DEADLINE)

    def test_a_file_that_stays_as_it_is_does_nothing(self, followed):
        """So what a caller has configured since stays, too."""
        followed.write("a")
        followed.poller.poll()
        followed.repository.configure([])
        followed.poller.poll()
        assert followed.served() == []
        followed.write("a", extra="model_version_policy { all {} }")
        followed.poller.poll()
        assert followed.served() == ["a"]

    def test_a_label_is_given_when_its_version_can_answer(self, followed, caplog, make_spec):
        hold = followed.loader.hold("a/1")
        followed.write("a")
        followed.poller.poll()
        assert hold.reached.wait(DEADLINE)
        followed.write("a", extra='version_labels { key: "stable" value: 1 }')
        for _ in range(2):
            followed.poller.poll()
        assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
            "the configuration stays as it was: Request to assign label to version 1 of model a, which is "
            f"not currently available for inference ({followed.file})"
        ]
        hold.release.set()
        assert followed.repository.wait_until_settled(DEADLINE)
        followed.poller.poll()
        with followed.repository.lease(make_spec("a", version_label="stable")) as version:
            assert version.number == 1

    @pytest.mark.parametrize("text", ["", "custom_model_config {}"])
    def test_only_a_list_follows_a_list(self, followed, caplog, text):
        followed.write("a")
        followed.poller.poll()
        followed.file.write_text(text)
        followed.poller.poll()
        assert followed.served() == ["a"]
        assert [record.levelname for record in caplog.records].count("ERROR") == 1

    def test_nothing_may_stay_nothing(self, followed, caplog):
        followed.file.write_text("")
        followed.poller.poll()
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []
        followed.write("a")
        followed.poller.poll()
        assert followed.served() == ["a"]

    def test_goes_on_by_itself(self, followed, eventually):
        followed.write("a")
        followed.poller.start()
        assert followed.served() == ["a"]  # at once
        followed.file.unlink()
        followed.write("b")
        eventually(lambda: followed.served() == ["b"])
        followed.poller.close()
        followed.poller._thread.join(DEADLINE)
        assert not followed.poller._thread.is_alive()
