"""How the client library reaches a server, and what it does when it cannot."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading

import grpc
import numpy as np
import pytest
from certificates import make_certificates
from grpc_stub import DEADLINE, GENERATE, PREDICT, Stub, answering, with_client

from serving.client import ServerError, Tls

CODES = grpc.StatusCode
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
HEALTH = "/grpc.health.v1.Health/Check"
EMBEDDING = answering(embedding=np.zeros([1, 2], np.float32))


@pytest.fixture(params=["sync", "async"])
def ask(request):
    """Asks a server something with either client."""

    def ask(address, use, **options):
        return with_client(request.param, address, use, **options)

    return ask


def embed(client):
    return client.embed("a")


def failing(times, code=CODES.UNAVAILABLE, details="busy"):
    """Fails so often, then answers."""
    count = itertools.count()

    def answer(_, context):
        if next(count) < times:
            context.abort(code, details)
        return EMBEDDING

    return answer


@pytest.mark.parametrize(
    ("times", "options"), [(0, {}), (2, {}), (3, {}), (1, {"retries": 1}), (4, {"retries": 4})]
)
def test_an_unavailable_server_is_asked_again(ask, times, options):
    with Stub({PREDICT: failing(times)}) as stub:
        assert ask(stub.address, embed, **options).version == 5
    assert len(stub.calls) == times + 1


@pytest.mark.parametrize(("retries", "calls"), [(0, 1), (1, 2), (3, 4)])
def test_but_not_for_ever(ask, retries, calls):
    with Stub({PREDICT: failing(100)}) as stub, pytest.raises(ServerError) as error:
        ask(stub.address, embed, retries=retries)
    assert (error.value.code, str(error.value)) == (
        CODES.UNAVAILABLE,
        f"{stub.address} cannot answer now: busy",
    )
    assert len(stub.calls) == calls


@pytest.mark.parametrize("code", [CODES.INVALID_ARGUMENT, CODES.RESOURCE_EXHAUSTED, CODES.INTERNAL])
def test_other_errors_are_final(ask, code):
    with Stub({PREDICT: failing(1, code, "no\nway")}) as stub, pytest.raises(ServerError) as error:
        ask(stub.address, embed)
    assert (error.value.code, str(error.value)) == (code, f"{stub.address} refused: {code.name}: no way")
    assert len(stub.calls) == 1


@pytest.mark.parametrize(
    ("details", "names"),
    [
        ("Inputs contains invalid name. Used request inputs: a,b, request input: a,b,c,d", "c, d"),
        ("Inputs contains invalid name. Used request inputs: , request input: c", "c"),
        (
            "input size does not match signature: 2!=1 len({a,c}) != len({a}). Sent extra: {c}. Missing but "
            "required: {}.",
            "c",
        ),
        (
            "input size does not match signature: 1!=2 len({a}) != len({a,c}). Sent extra: {}. Missing but "
            "required: {c}.",
            "",
        ),
    ],
)
def test_inputs_that_the_model_lacks_are_named(ask, details, names):
    code = CODES.INVALID_ARGUMENT
    with Stub({PREDICT: failing(1, code, details)}) as stub, pytest.raises(ServerError) as error:
        ask(stub.address, embed)
    reason = f"the model 'model' has no input {names}; is it an earlier export? ({details})"
    assert str(error.value) == f"{stub.address} refused: INVALID_ARGUMENT: {reason if names else details}"


def test_the_deadline_is_that_of_all_tries_together(ask):
    """Four retries wait 1.5 seconds, give or take a fifth."""
    with Stub({PREDICT: failing(100)}) as stub, pytest.raises(ServerError) as error:
        ask(stub.address, embed, retries=4, timeout_s=0.4)
    assert error.value.code is CODES.DEADLINE_EXCEEDED
    assert str(error.value) == f"{stub.address} gave no answer within 0.4 s; --timeout_s=N waits longer"
    assert len(stub.calls) < 5


def test_a_large_request_is_sent_again_as_well(ask):
    with Stub({PREDICT: failing(1)}) as stub:
        ask(stub.address, lambda client: client.predict({"x": np.zeros(1 << 20, np.float32)}))
    assert len(stub.calls) == 2


def test_there_are_four_retries_at_most(ask):
    with pytest.raises(ValueError, match="5 retries: there can be 0 to 4"):
        ask("127.0.0.1:1", embed, retries=5)


@pytest.mark.parametrize(
    ("path", "use"),
    [
        (RELOAD, lambda client: client.reload("model_config_list {}")),
        (HEALTH, lambda client: client.is_serving()),
    ],
)
def test_what_is_never_tried_again(ask, path, use):
    with Stub({path: failing(1)}) as stub, pytest.raises(ServerError):
        ask(stub.address, use)
    assert len(stub.calls) == 1


def token(last):
    return answering(token=["a"], token_id=np.int32([1]), log_prob=np.float32([0]), done=[last])


def test_a_stream_is_tried_again_before_its_first_token(ask):
    count = itertools.count()

    def generate(_, context):
        if next(count) < 2:
            context.abort(CODES.UNAVAILABLE, "full")
        yield token(True)

    with Stub({GENERATE: generate}) as stub:
        assert len(ask(stub.address, lambda client: client.stream(""))) == 1
    assert len(stub.calls) == 3


@pytest.mark.parametrize("code", [CODES.UNAVAILABLE, CODES.UNIMPLEMENTED])
def test_a_stream_is_not_begun_anew_after_its_first_token(ask, code):
    def generate(_, context):
        yield token(False)
        context.abort(code, "too late")

    with (
        Stub({GENERATE: generate, PREDICT: failing(0)}) as stub,
        pytest.raises(ServerError, match="too late"),
    ):
        ask(stub.address, lambda client: client.stream(""))
    assert stub.calls == [GENERATE]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def test_a_server_that_is_not_there(ask):
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ServerError) as error:
        ask(address, embed, retries=1)
    assert error.value.code is CODES.UNAVAILABLE
    assert str(error.value).startswith(f"no server answers at {address}; is zoo-serve running there? (")


def test_a_server_that_comes_back(ask):
    """What listens at first hangs up, and makes room for a server."""
    first = socket.create_server(("127.0.0.1", 0))
    port = first.getsockname()[1]
    stubs = contextlib.ExitStack()

    def replace():
        connection, _ = first.accept()
        first.close()
        connection.close()
        stubs.enter_context(Stub({PREDICT: failing(0)}, port=port))

    replacing = threading.Thread(target=replace)
    replacing.start()
    with stubs:
        assert ask(f"127.0.0.1:{port}", embed, retries=4).version == 5
        replacing.join(DEADLINE)


@pytest.mark.parametrize(
    ("code", "details", "message"),
    [
        (
            CODES.NOT_FOUND,
            "Servable not found",
            "{} does not serve the model 'model'; is --model right? (Servable not found)",
        ),
        (
            CODES.NOT_FOUND,
            "Servable not found for request: Specific(model, 9)",
            "{} does not serve that version of the model 'model'; are --model and --version right? "
            "(Servable not found for request: Specific(model, 9))",
        ),
        (
            CODES.FAILED_PRECONDITION,
            'Serving signature key "embed" not found.',
            "'model' at {} is not a model that can do this: Serving signature key \"embed\" not found.",
        ),
        (CODES.FAILED_PRECONDITION, "no", "{} refused: FAILED_PRECONDITION: no"),
        (CODES.DEADLINE_EXCEEDED, "it took too long", "{} refused: DEADLINE_EXCEEDED: it took too long"),
        (CODES.UNAUTHENTICATED, "who?", "{} refused: UNAUTHENTICATED: who?"),
    ],
)
def test_what_errors_mean(ask, code, details, message):
    with Stub({PREDICT: failing(1, code, details)}) as stub, pytest.raises(ServerError) as error:
        ask(stub.address, embed)
    assert (error.value.code, error.value.message) == (code, message.format(stub.address))
    assert str(error.value) == error.value.message


def test_unix_sockets(ask, serve, publish, exports, tmp_path):
    publish(exports["language"], tmp_path / "base", 7)
    serve(tmp_path / "base", grpc_socket_path=str(tmp_path / "socket"))
    address = f"unix:{tmp_path / 'socket'}"
    assert ask(address, lambda client: client.score("four")).num_tokens == 4
    assert len(ask(address, lambda client: client.stream("", max_new_tokens=3))) == 3
    nowhere = f"unix:{tmp_path / 'nowhere'}"
    with pytest.raises(ServerError) as error:
        ask(nowhere, embed, retries=0)
    assert error.value.code is CODES.UNAVAILABLE
    assert str(error.value).startswith(f"no server answers at {nowhere}; is zoo-serve running there?")


def test_an_answer_of_any_size(ask):
    large = answering(embedding=np.ones([1, 2_000_000], np.float32))
    with Stub({PREDICT: lambda *_: large}) as stub:
        assert ask(stub.address, embed).embedding.sum() == 2_000_000


def test_a_bearer_token_goes_with_each_request(ask):
    def generate(_, context):
        yield token(True)

    with Stub({PREDICT: failing(0), GENERATE: generate}) as stub:
        ask(stub.address, embed, bearer_token="open sesame")
        ask(stub.address, lambda client: client.stream(""), bearer_token="open sesame")
        ask(stub.address, embed)
    sent = [metadata.get("authorization") for metadata in stub.metadata]
    assert sent == ["Bearer open sesame", "Bearer open sesame", None]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@contextlib.contextmanager
def encrypted(folder, wants_certificate=False):
    """A server that shows a certificate, and may want to see one."""
    authority, certificate, key = (
        (folder / name).read_bytes() for name in ("ca.pem", "server.pem", "server.key")
    )
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], authority if wants_certificate else None, wants_certificate
    )
    with Stub({PREDICT: failing(0)}, credentials) as stub:
        yield stub.address


def test_tls(ask, certificates):
    with encrypted(certificates) as address:
        assert ask(address, embed, tls=Tls(certificates / "ca.pem")).version == 5
        assert ask(address, embed, tls=Tls((certificates / "ca.pem").read_bytes())).version == 5
        assert ask(address, embed, tls=Tls(str(certificates / "ca.pem")), bearer_token="a").version == 5


@pytest.mark.parametrize(
    "tls", [lambda folder: None, lambda folder: Tls(folder / "other.pem"), lambda folder: Tls()]
)
def test_a_server_that_cannot_be_trusted(ask, certificates, tls):
    with encrypted(certificates) as address, pytest.raises(ServerError) as error:
        ask(address, embed, tls=tls(certificates), retries=0)
    assert error.value.code is CODES.UNAVAILABLE


def test_mutual_tls(ask, certificates):
    authority = certificates / "ca.pem"
    with encrypted(certificates, wants_certificate=True) as address:
        tls = Tls(authority, certificates / "caller.pem", certificates / "caller.key")
        assert ask(address, embed, tls=tls).version == 5
        stranger = Tls(authority, certificates / "other.pem", certificates / "other.key")
        for refused in (Tls(authority), stranger):
            with pytest.raises(ServerError) as error:
                ask(address, embed, tls=refused, retries=0)
            assert error.value.code is CODES.UNAVAILABLE


def test_certificates_that_cannot_be_used(ask, certificates):
    with pytest.raises(ValueError, match="given together"):
        ask("127.0.0.1:1", embed, tls=Tls(certificate=certificates / "caller.pem"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ask("127.0.0.1:1", embed, tls=Tls(certificates / "nowhere.pem"))


def test_secrets_are_not_shown():
    assert "secret" not in repr(Tls(key=b"secret"))
