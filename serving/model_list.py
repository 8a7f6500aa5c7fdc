"""What a server serves: the list that zoo-serve has at GET /v1/models, for which gRPC has no request."""

from __future__ import annotations

import http.client
import json

import grpc

from serving.client_results import ServedModel
from serving.connection import ServerError

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def models(rest_server: str, timeout_s: float = 60.0, bearer_token: str = "") -> list[ServedModel]:
    """The models of the server whose HTTP API is at HOST:PORT.

    Raises:
        ServerError: there is no answer, or not within `timeout_s` seconds, or it is no list of models.
    """
    headers = {"Authorization": f"Bearer {bearer_token}"} if bearer_token else {}
    connection = http.client.HTTPConnection(rest_server, timeout=timeout_s)
    try:
        connection.request("GET", "/v1/models", headers=headers)
        response = connection.getresponse()
        status, body = response.status, response.read()
    except TimeoutError as error:
        message = f"{rest_server} gave no answer within {timeout_s:g} s; --timeout_s=N waits longer"
        raise ServerError(grpc.StatusCode.DEADLINE_EXCEEDED, message) from error
    except (OSError, http.client.HTTPException) as error:
        message = f"no server answers HTTP at {rest_server}; has zoo-serve that --rest_api_port? ({error})"
        raise ServerError(grpc.StatusCode.UNAVAILABLE, message) from error
    finally:
        connection.close()
    return _listed(rest_server, status, body)


def _listed(rest_server: str, status: int, body: bytes) -> list[ServedModel]:
    code = _CODES.get(status, grpc.StatusCode.UNKNOWN)
    try:
        document = json.loads(body)
        if status == http.client.OK:
            return [
                ServedModel(each["name"], {int(one["version"]): one["state"] for one in each["versions"]})
                for each in document["models"]
            ]
        message = " ".join(document["error"].split())
    except (ValueError, LookupError, TypeError, AttributeError):
        message = "that is no list of models"
    raise ServerError(code, f"{rest_server} refused: HTTP {status}: {message}")
