"""ModelService through real sockets and the stock stubs."""

import grpc
import pytest

from serving.messages import get_model_status_pb2, model_service_pb2

STATES = get_model_status_pb2.ModelVersionStatus
CODES = grpc.StatusCode


def status_request(spec):
    return get_model_status_pb2.GetModelStatusRequest(model_spec=spec)


@pytest.mark.parametrize("spec", [{}, {"version": 3}, {"version_label": "ignored"}])
def test_status_of_what_runs(arithmetic, make_spec, spec):
    response = arithmetic.management.GetModelStatus(status_request(make_spec(**spec)))
    (version,) = response.model_version_status
    assert (version.version, version.state) == (3, STATES.AVAILABLE)
    assert version.HasField("status")
    assert (version.status.error_code, version.status.error_message) == (0, "")


ERRORS = {
    "no model_spec": (None, CODES.INVALID_ARGUMENT, "Missing ModelSpec"),
    "unknown model": ({"name": "nobody"}, CODES.NOT_FOUND, "Could not find any versions of model nobody"),
    "empty name": ({"name": ""}, CODES.NOT_FOUND, "Could not find any versions of model "),
    "unknown version": ({"version": 9}, CODES.NOT_FOUND, "Could not find version 9 of model model"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_of_status(arithmetic, make_spec, case):
    spec, code, message = ERRORS[case]
    request = status_request(None if spec is None else make_spec(**spec))
    with pytest.raises(grpc.RpcError) as raised:
        arithmetic.management.GetModelStatus(request)
    assert (raised.value.code(), raised.value.details()) == (code, message)


def test_reloading_the_configuration_is_not_built(arithmetic):
    service = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
    call = arithmetic.channel.unary_unary(f"/{service.full_name}/HandleReloadConfigRequest")
    with pytest.raises(grpc.RpcError) as raised:
        call(b"")
    assert raised.value.code() == CODES.UNIMPLEMENTED
