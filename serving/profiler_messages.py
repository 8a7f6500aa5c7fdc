"""Messages and service of TensorFlow's profiler, which its Python package lacks.

Their names, numbers and types are those of profiler_service.proto, profiler_options.proto and
profiler_service_monitor_result.proto in tsl/profiler/protobuf. TensorFlow may register messages of the same
names, so they live in a pool of their own. The service lacks what leaves a profiler running when the call has
ended: StartContinuousProfiling, StopContinuousProfiling, GetSnapshot.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from serving.descriptors import add_enum, add_message

_FIELDS = {
    "ToolRequestOptions": "output_formats:string=2 save_to_repo:bool=3",
    "ProfileRequest": (
        "duration_ms:uint64=1 max_events:uint64=2 tools:string*=3 "
        "tool_options:map(tensorflow.ToolRequestOptions)=8 opts:tensorflow.ProfileOptions=4 "
        "repository_root:string=5 session_id:string=6 host_name:string=7 emit_xspace:bool=9"
    ),
    "ProfileToolData": "name:string=1 data:bytes=2",
    "ProfileResponse": (
        "tool_data:tensorflow.ProfileToolData*=6 empty_trace:bool=7 xspace:tensorflow.profiler.XSpace=8"
    ),
    "TerminateRequest": "session_id:string=1",
    "TerminateResponse": "",
    "MonitorRequest": "duration_ms:uint64=1 monitoring_level:int32=2 timestamp:bool=3",
    "MonitorResponse": "data:string=1 monitor_result:tensorflow.ProfilerServiceMonitorResult=10",
    "ProfileOptions": (
        "version:uint32=5 device_type:enum(tensorflow.ProfileOptions.DeviceType)=6 "
        "include_dataset_ops:bool=1 host_tracer_level:uint32=2 device_tracer_level:uint32=3 "
        "python_tracer_level:uint32=4 enable_hlo_proto:bool=7 start_timestamp_ns:uint64=8 "
        "duration_ms:uint64=9 repository_path:string=10 "
        "trace_options:tensorflow.ProfileOptions.TraceOptions=11 "
        "advanced_configuration:map(tensorflow.ProfileOptions.AdvancedConfigValue)=12 "
        "raise_error_on_start_failure:bool=13 session_id:string=14 override_hostname:string=15"
    ),
    "ProfilerServiceMonitorResult": (
        "response_type:enum(tensorflow.ProfilerServiceMonitorResult.ResponseType)=1 "
        "device_idle_time_percent:double=2 matrix_unit_utilization_percent:double=3 "
        "step_time_ms_avg:double=4 step_time_ms_min:double=5 step_time_ms_max:double=6 "
        "infeed_percent_avg:double=7 infeed_percent_min:double=8 infeed_percent_max:double=9"
    ),
}
_CONFIG_VALUE = "string_value:string=1 bool_value:bool=2 int64_value:int64=3"  # one of them
_DEVICE_TYPES = {"UNSPECIFIED": 0, "CPU": 1, "GPU": 2, "TPU": 3, "PLUGGABLE_DEVICE": 4}
_RESPONSE_TYPES = {"EMPTY_RESULT": 0, "UTIL_ONLY": 1, "UTIL_IDLE": 2, "UTIL_IDLE_STEP": 3}
# What was recorded, of xplane.proto. The messages inside are bytes here, which is the same on the wire: to
# take apart some hundred thousand events would hold up all of Python.
_TRACE_FIELDS = {
    "XSpace": "planes:bytes*=1 errors:string*=2 warnings:string*=3 hostnames:string*=4",
    "XPlane": "lines:bytes*=3",
    "XLine": "events:bytes*=4",
}


def _trace_file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="tsl/profiler/protobuf/xplane.proto", package="tensorflow.profiler", syntax="proto3"
    )
    for name, fields in _TRACE_FIELDS.items():
        add_message(file.message_type, name, fields)
    return file


def _service_file(trace_file: str) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="tsl/profiler/protobuf/profiler_service.proto",
        package="tensorflow",
        syntax="proto3",
        dependency=[trace_file],
    )
    messages = {name: add_message(file.message_type, name, fields) for name, fields in _FIELDS.items()}
    options = messages["ProfileOptions"]
    add_enum(options.enum_type, "DeviceType", _DEVICE_TYPES)
    add_message(options.nested_type, "TraceOptions", "host_traceme_filter_mask:uint64=1")
    value = add_message(options.nested_type, "AdvancedConfigValue", _CONFIG_VALUE)
    value.oneof_decl.add(name="value")
    for field in value.field:
        field.oneof_index = 0
    add_enum(messages["ProfilerServiceMonitorResult"].enum_type, "ResponseType", _RESPONSE_TYPES)
    service = file.service.add(name="ProfilerService")
    for name in ("Profile", "Terminate", "Monitor"):
        types = {"input_type": f".tensorflow.{name}Request", "output_type": f".tensorflow.{name}Response"}
        service.method.add(name=name, **types)
    return file


_pool = descriptor_pool.DescriptorPool()
for _file in (_trace_file(), _service_file(_trace_file().name)):
    _pool.AddSerializedFile(_file.SerializeToString())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"tensorflow.{name}"))


SERVICE = _pool.FindServiceByName("tensorflow.ProfilerService")
ProfileRequest = _message("ProfileRequest")
ProfileResponse = _message("ProfileResponse")
TerminateRequest = _message("TerminateRequest")
TerminateResponse = _message("TerminateResponse")
MonitorRequest = _message("MonitorRequest")
XSpace = _message("profiler.XSpace")
XPlane = _message("profiler.XPlane")
XLine = _message("profiler.XLine")
