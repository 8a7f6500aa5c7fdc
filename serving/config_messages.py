"""Messages of TensorFlow Serving's configuration files that its Python package lacks.

Their names, numbers and types are those of config/ssl_config.proto, config/monitoring_config.proto and
servables/tensorflow/session_bundle_config.proto. They never travel, and live in a pool of their own, where
they cannot meet others of the same names.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

from serving.descriptors import add_message

_PACKAGE = "tensorflow.serving"
_FIELDS = {
    "SSLConfig": "server_key:string=1 server_cert:string=2 custom_ca:string=3 client_verify:bool=4",
    "PrometheusConfig": "enable:bool=1 path:string=2",
    "MonitoringConfig": "prometheus_config:tensorflow.serving.PrometheusConfig=1",
    "BatchingParameters": (
        "max_batch_size:google.protobuf.Int64Value=1 "
        "batch_timeout_micros:google.protobuf.Int64Value=2 "
        "max_enqueued_batches:google.protobuf.Int64Value=3 "
        "num_batch_threads:google.protobuf.Int64Value=4 "
        "thread_pool_name:google.protobuf.StringValue=5 "
        "allowed_batch_sizes:int64*=6 "
        "pad_variable_length_inputs:bool=7 "
        "enable_large_batch_splitting:google.protobuf.BoolValue=8 "
        "max_execution_batch_size:google.protobuf.Int64Value=9"
    ),
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="tensorflow_serving/config_files.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in _FIELDS.items():
        add_message(file.message_type, name, fields)
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
_pool.AddSerializedFile(_file().SerializeToString())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


SSLConfig = _message("SSLConfig")
PrometheusConfig = _message("PrometheusConfig")
MonitoringConfig = _message("MonitoringConfig")
BatchingParameters = _message("BatchingParameters")
