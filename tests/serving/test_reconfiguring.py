"""Models and labels come, change and go while requests run; servables are only names."""

import grpc
import pytest
from named_servables import DEADLINE, Loader

from serving.model_config import ModelConfig, VersionPolicy
from serving.repository import MAX_REMOVED, LoadPolicy, Repository
from serving.rpc import StatusError
from serving.versions import State

ALL = VersionPolicy(latest=None)
UNAVAILABLE = (
    "Request to assign label to version {} of model {}, which is not currently available for inference"
)


class Folders:
    """Base paths of several models below a folder, and a repository."""

    def __init__(self, path, allow_unavailable_labels=False):
        self.path = path
        self.loader = Loader()
        policy = LoadPolicy(0.005, 1, 0.01, allow_unavailable_labels)
        self.repository = Repository([], self.loader, policy)

    def add(self, *versions):
        for version in versions:
            (self.path / version).mkdir(parents=True)

    def config(self, name, **fields):
        return ModelConfig(name, str(self.path / name), **fields)

    def serve(self, *configs):
        """Configures, and waits until all can answer."""
        added = self.repository.configure(configs)
        assert self.repository.wait_until_settled(DEADLINE)
        assert self.repository.failures() == []
        return added

    def states(self, name):
        return {number: state for number, state, _ in self.repository.versions(name)}


@pytest.fixture
def folders(tmp_path):
    started = []

    def start(**options):
        started.append(Folders(tmp_path, **options))
        started[-1].repository.start()
        return started[-1]

    yield start
    for each in started:
        each.repository.close()


class TestModels:
    def test_come_and_go(self, folders, make_spec, eventually):
        served = folders()
        served.add("a/1", "b/1", "c/1")
        a, b, c = (served.config(name) for name in "abc")
        assert served.serve(a, b) == {"a", "b"}
        assert served.repository.model_names() == ["a", "b"]
        with served.repository.lease(make_spec("a")) as version:
            assert served.serve(b, c) == {"c"}
            assert served.repository.model_names() == ["b", "c"]
            with pytest.raises(StatusError, match=r"^Servable not found for request: Latest\(a\)$"):
                served.repository.lease(make_spec("a"))
            assert served.states("a") == {1: State.UNLOADING}
            assert not version.servable.closed.is_set()
        eventually(lambda: served.states("a") == {1: State.END})
        assert served.loader.loaded["a/1"].closed.is_set()
        assert served.loader.attempts == ["a/1", "b/1", "c/1"] or served.loader.attempts[:2] == ["b/1", "a/1"]
        assert not served.loader.loaded["b/1"].closed.is_set()

    def test_come_back(self, folders, eventually):
        served = folders()
        served.add("a/1")
        served.serve(served.config("a"))
        served.repository.configure([])
        eventually(lambda: served.states("a") == {1: State.END})
        assert served.serve(served.config("a")) == {"a"}
        assert served.states("a") == {1: State.AVAILABLE}
        assert served.loader.attempts == ["a/1", "a/1"]

    def test_that_failed_for_good_are_tried_anew_when_they_come_back(self, folders, eventually):
        served = folders()
        served.add("a/1")
        served.loader.failures["a/1"] = 2
        served.repository.configure([served.config("a")])
        eventually(served.repository.failures)
        served.repository.configure([])
        served.serve(served.config("a"))

    def test_are_left_alone_by_the_same_configuration(self, folders):
        served = folders()
        served.add("a/1")
        served.serve(served.config("a", labels={}))
        assert served.repository.configure([served.config("a")]) == set()
        assert served.states("a") == {1: State.AVAILABLE}

    def test_that_are_taken_out_while_they_load_never_answer(self, folders, eventually):
        served = folders()
        served.add("a/1")
        hold = served.loader.hold("a/1")
        served.repository.configure([served.config("a")])
        assert hold.reached.wait(DEADLINE)
        served.repository.configure([])
        assert served.states("a") == {1: State.LOADING}
        hold.release.set()
        eventually(lambda: served.states("a") == {1: State.END})
        assert served.loader.loaded["a/1"].closed.is_set()

    def test_that_move_while_they_load_come_from_the_new_place(self, folders, eventually):
        served = folders()
        served.add("old/1", "new/1")
        hold = served.loader.hold("old/1")
        served.repository.configure([ModelConfig("a", str(served.path / "old"))])
        assert hold.reached.wait(DEADLINE)
        served.repository.configure([ModelConfig("a", str(served.path / "new"))])
        hold.release.set()
        eventually(lambda: served.states("a") == {1: State.AVAILABLE})
        assert served.loader.attempts == ["old/1", "new/1"]
        assert served.loader.loaded["old/1"].closed.is_set()
        assert not served.loader.loaded["new/1"].closed.is_set()

    def test_that_join_are_not_missed_before_they_could_answer(self, folders, eventually):
        """The server stays ready for those that run; at its start it is ready when all are."""
        served = folders()
        served.add("a/1", "b/1")
        served.serve(served.config("a"))
        hold = served.loader.hold("b/1")
        served.repository.configure([served.config("a"), served.config("b")])
        assert hold.reached.wait(DEADLINE)
        assert served.repository.all_available()
        hold.release.set()
        eventually(lambda: served.states("b") == {1: State.AVAILABLE})
        (served.path / "b" / "1").rmdir()
        eventually(lambda: not served.repository.all_available())

    def test_at_the_start_are_all_missed(self, tmp_path):
        repository = Repository([("a", str(tmp_path))], Loader())
        assert not repository.all_available()

    def test_served_no_more_are_kept_to_a_number(self, tmp_path):
        repository = Repository([], Loader())
        for number in range(2 * MAX_REMOVED):
            repository.configure([ModelConfig(str(number), str(tmp_path))])
        assert len(repository._lifecycles) <= MAX_REMOVED + 1

    def test_are_loaded_one_after_the_other(self, folders, eventually):
        served = folders()
        served.add("a/1", "b/1")
        holds = {name: served.loader.hold(f"{name}/1") for name in "ab"}
        served.repository.configure([served.config("a"), served.config("b")])
        eventually(lambda: any(hold.reached.is_set() for hold in holds.values()))
        first, second = sorted(holds, key=lambda name: not holds[name].reached.is_set())
        eventually(lambda: served.states(second) == {1: State.START})
        assert not holds[second].reached.is_set()
        for hold in holds.values():
            hold.release.set()
        eventually(lambda: served.states(first) == served.states(second) == {1: State.AVAILABLE})


class TestLabels:
    def test_name_versions(self, folders, make_spec):
        served = folders()
        served.add("a/1", "a/2")
        served.serve(served.config("a", policy=ALL))
        served.serve(served.config("a", policy=ALL, labels={"stable": 1, "canary": 2}))
        for label, number in (("stable", 1), ("canary", 2)):
            with served.repository.lease(make_spec("a", version_label=label)) as version:
                assert version.number == number

    @pytest.mark.parametrize(("model", "label"), [("a", "unknown"), ("a", ""), ("nobody", "stable")])
    def test_that_are_not_given(self, folders, make_spec, model, label):
        served = folders()
        served.add("a/1")
        served.serve(served.config("a"))
        served.serve(served.config("a", labels={"stable": 1}))
        spec = make_spec(model, version_label=label)
        with pytest.raises(StatusError) as raised:
            served.repository.lease(spec)
        assert raised.value.code == grpc.StatusCode.INVALID_ARGUMENT
        assert raised.value.message == f"Unrecognized servable version label: {label}"

    def test_of_a_version_that_went(self, folders, make_spec, eventually):
        served = folders(allow_unavailable_labels=True)
        served.add("a/1")
        served.serve(served.config("a", labels={"stable": 1}))
        (served.path / "a" / "1").rename(served.path / "a" / "2")
        eventually(lambda: served.states("a") == {2: State.AVAILABLE, 1: State.END})
        with pytest.raises(StatusError) as raised:
            served.repository.lease(make_spec("a", version_label="stable"))
        assert raised.value.code == grpc.StatusCode.NOT_FOUND
        assert raised.value.message == "Servable not found for request: Specific(a, 1)"

    def test_are_taken_back_by_the_next_configuration(self, folders, make_spec):
        served = folders()
        served.add("a/1")
        served.serve(served.config("a"))
        served.serve(served.config("a", labels={"stable": 1}))
        served.serve(served.config("a"))
        with pytest.raises(StatusError, match="Unrecognized servable version label: stable"):
            served.repository.lease(make_spec("a", version_label="stable"))

    @pytest.mark.parametrize(
        ("allowed", "labels", "refused"),
        [
            (False, {"stable": 1}, None),
            (False, {"stable": 2}, 2),  # not loaded
            (False, {"new": 9}, 9),  # not there at all
            (True, {"new": 9}, None),
            (True, {"new": 9, "stable": 1}, None),
            (True, {"stable": 9}, 9),  # it is in use, and moves only to what can answer
            (True, {"stable": 9, "new": 1}, 9),
        ],
    )
    def test_for_versions_that_cannot_answer(self, folders, make_spec, allowed, labels, refused):
        served = folders(allow_unavailable_labels=allowed)
        served.add("a/2", "a/1", "b/1")
        one = VersionPolicy(specific=frozenset([1]))
        served.serve(served.config("a", policy=one))
        served.serve(served.config("a", policy=one, labels={"stable": 1}))
        wanted = [served.config("a", policy=one, labels=labels), served.config("b")]
        if refused is None:
            assert served.repository.configure(wanted) == {"b"}
            return
        with pytest.raises(StatusError) as raised:
            served.repository.configure(wanted)
        assert raised.value.code == grpc.StatusCode.FAILED_PRECONDITION
        assert raised.value.message == UNAVAILABLE.format(refused, "a")
        assert served.repository.model_names() == ["a"]  # nothing has changed
        with served.repository.lease(make_spec("a", version_label="stable")) as version:
            assert version.number == 1

    @pytest.mark.parametrize("allowed", [False, True])
    def test_at_the_start(self, tmp_path, allowed):
        """No version is loaded then."""
        config = ModelConfig("a", str(tmp_path), labels={"stable": 1})
        policy = LoadPolicy(allow_unavailable_labels=allowed)
        if allowed:
            assert Repository([config], Loader(), policy).model_names() == ["a"]
            return
        with pytest.raises(StatusError) as raised:
            Repository([config], Loader(), policy)
        assert raised.value.message == UNAVAILABLE.format(1, "a")


class TestWaiting:
    def test_for_models_that_load_or_fail(self, folders, eventually):
        served = folders()
        served.add("a/1", "b/3")
        heard = []
        with served.repository.listening(lambda: heard.append(None)):
            hold = served.loader.hold("a/1")
            served.loader.failures["b/3"] = 2
            served.repository.configure([served.config("a"), served.config("b")])
            assert hold.reached.wait(DEADLINE)
            assert not served.repository.check_available({"a", "b"})
            hold.release.set()
            eventually(lambda: served.repository.check_available({"a"}))
            eventually(served.repository.failures)
            with pytest.raises(StatusError) as raised:
                served.repository.check_available({"a", "b"})
            assert heard
        assert raised.value.code == grpc.StatusCode.UNKNOWN
        assert raised.value.message == (
            "1 model(s) did not become available: {{{name: b version: 3} due to error: DATA_LOSS: torn}, }"
        )
        heard.clear()
        served.repository.configure([])
        assert heard == []

    def test_ends_when_a_model_is_taken_out_again(self, folders):
        served = folders()
        served.repository.configure([served.config("a")])
        served.repository.configure([])
        with pytest.raises(StatusError) as raised:
            served.repository.check_available({"a"})
        assert raised.value.code == grpc.StatusCode.ABORTED
        assert raised.value.message == "Model a was taken out of the configuration again"

    def test_ends_when_the_server_stops(self, folders):
        served = folders()
        served.repository.configure([served.config("a")])
        served.repository.close()
        with pytest.raises(StatusError) as raised:
            served.repository.check_available({"a"})
        assert raised.value.code == grpc.StatusCode.UNAVAILABLE
