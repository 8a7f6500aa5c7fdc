"""What a ModelServerConfig says of models, and what it may not say."""

import grpc
import pytest
from google.protobuf import text_format

from serving import model_config
from serving.messages import model_server_config_pb2
from serving.model_config import ModelConfig, VersionPolicy
from serving.rpc import StatusError


def parse(text):
    return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())


def models(*fields):
    return parse("model_config_list {" + "".join(f"config {{ {each} }}" for each in fields) + "}")


A = 'name: "a" base_path: "/models/a" model_platform: "tensorflow"'


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", VersionPolicy(latest=1)),
        ("latest {}", VersionPolicy(latest=1)),
        ("latest { num_versions: 0 }", VersionPolicy(latest=1)),
        ("latest { num_versions: 3 }", VersionPolicy(latest=3)),
        ("all {}", VersionPolicy(latest=None)),
        ("specific { versions: 7 versions: 42 }", VersionPolicy(specific=frozenset([7, 42]))),
        ("specific {}", VersionPolicy(specific=frozenset())),
    ],
)
def test_version_policies(text, policy):
    (model,) = model_config.from_proto(models(f"{A} model_version_policy {{ {text} }}"))
    assert model == ModelConfig("a", "/models/a", policy)


def test_labels_and_several_models():
    labels = 'version_labels { key: "stable" value: 3 } version_labels { key: "canary" value: 4 }'
    b = 'name: "b" base_path: "/models/b" model_type: TENSORFLOW'
    first, second = model_config.from_proto(models(f"{A} {labels}", b))
    assert first == ("a", "/models/a", VersionPolicy(), {"stable": 3, "canary": 4})
    assert second == ("b", "/models/b", VersionPolicy(), {})


@pytest.mark.parametrize(
    ("policy", "wanted", "missing"),
    [
        (VersionPolicy(), {9}, set()),
        (VersionPolicy(latest=2), {9, 4}, set()),
        (VersionPolicy(latest=None), {9, 4, 1}, set()),
        (VersionPolicy(specific=frozenset([1, 2])), {1}, {2}),
    ],
)
def test_what_a_policy_wants(policy, wanted, missing):
    assert policy.choose({1: "", 4: "", 9: ""}) == wanted
    assert policy.missing({1: "", 4: "", 9: ""}) == missing
    assert policy.choose([]) == set()


ERRORS = {
    "a name twice": ((A, A), "Illegal to list model a multiple times in config list"),
    "a relative path": (
        ('name: "a" base_path: "models/a" model_platform: "tensorflow"',),
        "Expected model a to have an absolute path or URI; got base_path()=models/a",
    ),
    "no path": (
        ('name: "a" model_platform: "tensorflow"',),
        "Expected model a to have an absolute path or URI; got base_path()=",
    ),
    "an address": (
        ('name: "a" base_path: "gs://bucket/a" model_platform: "tensorflow"',),
        "Model a has base_path gs://bucket/a, a URI; only folders can be served here",
    ),
    "a NUL": (
        (r'name: "a" base_path: "/models\0/a" model_platform: "tensorflow"',),
        "Model a has a NUL character in its base_path",
    ),
    "no platform": (
        ('name: "a" base_path: "/models/a"',),
        "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
        "ModelServerConfig::model_platform.",
    ),
    "two platforms": (
        (f"{A} model_type: TENSORFLOW",),
        "Illegal setting both ModelServerConfig::model_type (deprecated) and "
        "ModelServerConfig::model_platform.",
    ),
    "a model type of old": (
        ('name: "a" base_path: "/models/a" model_type: OTHER',),
        "ModelServerConfig::model_type choice 2 not supported.",
    ),
    "another platform": (
        ('name: "b" base_path: "/models/b" model_platform: "pytorch"',),
        "Model b requests unsupported platform pytorch",
    ),
    "another platform than before": (
        ('name: "running" base_path: "/models/b" model_platform: "pytorch"',),
        "Illegal to change a model's platform. For model running platform was tensorflow and new platform "
        "requested is pytorch",
    ),
    "logging": ((A + " logging_config {}",), "No request-logger-creator provided."),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    configs, message = ERRORS[case]
    with pytest.raises(StatusError) as raised:
        model_config.from_proto(models(*configs), served=["running"])
    assert (raised.value.code, raised.value.message) == (grpc.StatusCode.INVALID_ARGUMENT, message)
