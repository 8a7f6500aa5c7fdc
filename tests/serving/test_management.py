"""ModelService through real sockets and the stock stubs."""

import asyncio
import concurrent.futures
import contextlib
import threading

import grpc
import pytest
from google.protobuf import text_format
from named_servables import DEADLINE, Loader

from serving import rpc
from serving.management import ModelService
from serving.messages import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
)
from serving.repository import LoadPolicy, Repository

STATES = get_model_status_pb2.ModelVersionStatus
CODES = grpc.StatusCode


def status_request(spec):
    return get_model_status_pb2.GetModelStatusRequest(model_spec=spec)


class Served:
    """A ModelService on a socket; servables are only names. Callers may have models from `allowed`."""

    def __init__(self, path, address, loader, repository):
        self.allowed = path / "allowed"
        self.loader, self.repository = loader, repository
        self.channel = grpc.insecure_channel(address)
        self.stub = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def config(self, name, path=None, extra="", platform="tensorflow"):
        path = self.allowed / name if path is None else path
        return f'config {{ name: "{name}" base_path: "{path}" model_platform: "{platform}" {extra} }}'

    def request(self, *configs):
        text = f"config {{ model_config_list {{ {' '.join(configs)} }} }}"
        return text_format.Parse(text, model_management_pb2.ReloadConfigRequest())

    def reload(self, *configs):
        return self.stub.HandleReloadConfigRequest(self.request(*configs), timeout=DEADLINE)

    def error(self, *configs):
        with pytest.raises(grpc.RpcError) as raised:
            self.reload(*configs)
        return raised.value.code(), raised.value.details()

    def states(self, spec):
        versions = self.stub.GetModelStatus(status_request(spec), timeout=DEADLINE).model_version_status
        return {version.version: version.state for version in versions}


@contextlib.contextmanager
def event_loop():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(DEADLINE)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@contextlib.contextmanager
def model_service(repository, reloadable_base_paths):
    async def start():
        server = grpc.aio.server()
        (descriptor,) = model_service_pb2.DESCRIPTOR.services_by_name.values()
        service = ModelService(repository, reloadable_base_paths)
        server.add_generic_rpc_handlers((rpc.handler(descriptor, service),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    with event_loop() as run:
        server, port = run(start())
        yield f"127.0.0.1:{port}"
        run(server.stop(None))


@pytest.fixture
def served(tmp_path):
    """Serves version 1 of the model `own`, which lies in no folder of callers, and has `a` to offer."""
    for version in ("own/1", "allowed/a/1", "allowed/b/1", "allowed/b/2", "forbidden/c/1"):
        (tmp_path / version).mkdir(parents=True)
    loader = Loader()
    repository = Repository([("own", str(tmp_path / "own"))], loader, LoadPolicy(0.005, 1, 0.01))
    repository.start()
    assert repository.wait_until_settled(DEADLINE)
    with model_service(repository, [str(tmp_path / "allowed")]) as address:
        running = Served(tmp_path, address, loader, repository)
        yield running
        running.channel.close()
    repository.close()


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


def test_status_of_a_version_that_fails(served, make_spec, eventually):
    served.loader.failures["a/1"] = 2
    call = served.stub.HandleReloadConfigRequest.future(served.request(served.config("a")))
    with pytest.raises(grpc.RpcError) as raised:
        call.result(DEADLINE)
    assert raised.value.code() == CODES.UNKNOWN
    assert raised.value.details() == (
        "1 model(s) did not become available: {{{name: a version: 1} due to error: DATA_LOSS: torn}, }"
    )
    response = served.stub.GetModelStatus(status_request(make_spec("a")))
    (version,) = response.model_version_status
    assert (version.version, version.state) == (1, STATES.END)
    assert (version.status.error_code, version.status.error_message) == (15, "torn")


class TestReloading:
    def test_replaces_the_whole_configuration(self, served, make_spec, eventually):
        labels = 'version_labels { key: "stable" value: 1 }'
        response = served.reload(served.config("a"), served.config("b", extra="model_version_policy{all{}}"))
        assert response.HasField("status")
        assert (response.status.error_code, response.status.error_message) == (0, "")
        assert served.states(make_spec("a")) == {1: STATES.AVAILABLE}  # it was waited for
        eventually(lambda: served.states(make_spec("b")) == {1: STATES.AVAILABLE, 2: STATES.AVAILABLE})
        eventually(lambda: served.states(make_spec("own")) == {1: STATES.END})
        served.reload(served.config("b", extra=f"model_version_policy{{all{{}}}} {labels}"))
        assert served.repository.model_names() == ["b"]
        with served.repository.lease(make_spec("b", version_label="stable")) as version:
            assert version.number == 1

    def test_waits_for_new_models_only(self, served, make_spec):
        served.reload(served.config("a"))
        hold = served.loader.hold("b/2")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            reloading = pool.submit(served.reload, served.config("a"), served.config("b"))
            assert hold.reached.wait(DEADLINE)
            # Nobody else waits meanwhile, neither for the status nor to reload what is there.
            assert served.states(make_spec("b")) == {2: STATES.LOADING}
            served.reload(served.config("a"), served.config("b", extra="model_version_policy{latest{}}"))
            assert not reloading.done()
            hold.release.set()
            assert reloading.result(DEADLINE).status.error_code == 0
        assert served.states(make_spec("b")) == {2: STATES.AVAILABLE}

    def test_leaves_leased_versions_to_their_requests(self, served, make_spec, eventually):
        with served.repository.lease(make_spec("own")) as version:
            served.reload(served.config("a"))
            assert not version.servable.closed.is_set()
            assert served.states(make_spec("own")) == {1: STATES.UNLOADING}
        eventually(lambda: served.states(make_spec("own")) == {1: STATES.END})
        assert served.loader.loaded["own/1"].closed.is_set()

    def test_lasts_no_longer_than_its_caller_waits(self, served, make_spec, eventually):
        """A base path that is not there is waited for; the configuration is in force all the same."""
        call = served.stub.HandleReloadConfigRequest.future(
            served.request(served.config("a"), served.config("absent")), timeout=0.5
        )
        with pytest.raises(grpc.RpcError) as raised:
            call.result(DEADLINE)
        assert raised.value.code() == CODES.DEADLINE_EXCEEDED
        assert served.repository.model_names() == ["a", "absent"]
        eventually(lambda: not served.repository._loading.listeners)  # nothing waits any more
        served.reload(served.config("a"))

    def test_ends_when_another_takes_the_model_out(self, served, eventually):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            reloading = pool.submit(served.error, served.config("absent"))
            eventually(lambda: served.repository.model_names() == ["absent"])
            served.reload(served.config("a"))
            assert reloading.result(DEADLINE) == (
                CODES.ABORTED,
                "Model absent was taken out of the configuration again",
            )

    @pytest.mark.parametrize("kind", ["", "custom_model_config {}"])
    def test_takes_nothing_but_lists(self, served, kind):
        request = text_format.Parse(f"config {{ {kind} }}", model_management_pb2.ReloadConfigRequest())
        with pytest.raises(grpc.RpcError) as raised:
            served.stub.HandleReloadConfigRequest(request)
        assert raised.value.code() == CODES.INVALID_ARGUMENT
        assert raised.value.details() == (
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        )

    def test_errors_change_nothing(self, served):
        label = 'version_labels { key: "stable" value: 9 }'
        a = served.config("a")
        for configs, code, message in (
            ([a, a], CODES.INVALID_ARGUMENT, "Illegal to list model a multiple times in config list"),
            (
                [served.config("a", "models/a")],
                CODES.INVALID_ARGUMENT,
                "Expected model a to have an absolute path or URI; got base_path()=models/a",
            ),
            (
                [served.config("own", platform="caffe")],
                CODES.INVALID_ARGUMENT,
                "Illegal to change a model's platform. For model own platform was tensorflow and new "
                "platform requested is caffe",
            ),
            (
                [served.config("a", extra=label)],
                CODES.FAILED_PRECONDITION,
                "Request to assign label to version 9 of model a, which is not currently available for "
                "inference",
            ),
            (
                [served.config("a", extra="logging_config {}")],
                CODES.INVALID_ARGUMENT,
                "No request-logger-creator provided.",
            ),
        ):
            assert served.error(*configs) == (code, message)
            assert served.repository.model_names() == ["own"]
        assert served.repository.all_available()

    def test_is_off_unless_enabled(self, served):
        with model_service(served.repository, None) as address, grpc.insecure_channel(address) as channel:
            stub = model_service_pb2_grpc.ModelServiceStub(channel)
            with pytest.raises(grpc.RpcError) as raised:
                stub.HandleReloadConfigRequest(served.request(served.config("a")), timeout=DEADLINE)
        assert raised.value.code() == CODES.PERMISSION_DENIED
        assert raised.value.details() == (
            "HandleReloadConfigRequest is off; --allow_model_config_reload turns it on"
        )
        assert served.repository.model_names() == ["own"]


class TestFoldersOfCallers:
    @pytest.mark.parametrize(
        "escape",
        [
            "{root}/forbidden/c",
            "{root}/allowed/../forbidden/c",
            "{root}/allowed/a/../../forbidden/c",
            "{root}/allowed/link",
            "{root}/allowed/link/../c",
            "{root}/allowed-not/c",
            "{root}/allowed/chain",
            "{root}",
            "/",
        ],
    )
    def test_cannot_be_left(self, served, escape):
        root = served.allowed.parent
        (served.allowed / "link").symlink_to(root / "forbidden" / "c")
        (served.allowed / "chain").symlink_to(served.allowed / "link")
        (root / "allowed-not" / "c" / "1").mkdir(parents=True)
        path = escape.format(root=root)
        assert served.error(served.config("a"), served.config("c", path)) == (
            CODES.PERMISSION_DENIED,
            f"Model c has base_path {path}, which is in none of the folders of --reloadable_base_paths",
        )
        assert served.repository.model_names() == ["own"]

    @pytest.mark.parametrize("path", ["{root}/allowed/./b/", "{root}/way-in/b", "{root}/own/../allowed/b"])
    def test_are_entered_by_any_way(self, served, make_spec, path):
        root = served.allowed.parent
        (root / "way-in").symlink_to(served.allowed)
        served.reload(served.config("b", path.format(root=root)))
        assert served.states(make_spec("b")) == {2: STATES.AVAILABLE}

    def test_do_not_concern_models_that_stay_where_they_are(self, served, make_spec):
        own = served.allowed.parent / "own"
        served.reload(served.config("own", own, 'version_labels { key: "stable" value: 1 }'))
        with served.repository.lease(make_spec("own", version_label="stable")) as version:
            assert version.number == 1
        code, _ = served.error(served.config("another", own))
        assert code == CODES.PERMISSION_DENIED

    def test_are_those_that_were_looked_at(self, served, make_spec, eventually):
        """A link that is changed afterwards leads nowhere else."""
        (served.allowed / "link").symlink_to(served.allowed / "a")
        served.reload(served.config("c", served.allowed / "link"))
        (served.allowed / "link").unlink()
        (served.allowed / "link").symlink_to(served.allowed.parent / "forbidden" / "c")
        (served.allowed / "a" / "1").rename(served.allowed / "a" / "2")
        eventually(lambda: served.states(make_spec("c")) == {2: STATES.AVAILABLE, 1: STATES.END})
        assert "c/1" not in served.loader.attempts
