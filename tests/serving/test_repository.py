"""The life of versions, with servables that are only names."""

import concurrent.futures
import threading

import grpc
import pytest
from named_servables import DEADLINE, Hold, Loader

from serving import lifecycle
from serving.model_config import ModelConfig, VersionPolicy
from serving.repository import LoadPolicy, Repository
from serving.rpc import StatusError
from serving.versions import MAX_ENDED, State, find_versions

QUICK = LoadPolicy(poll_seconds=0.005, max_retries=2, retry_seconds=0.01)
NEWEST = VersionPolicy()
FOR_EVER = 10**9


class Folder:
    """A base path with a repository that watches it."""

    def __init__(self, path, policy=QUICK, versions=NEWEST, warm_up=None):
        self.path = path
        self.path.mkdir(exist_ok=True)
        self.loader = Loader()
        self.changes = 0
        self.config = ModelConfig("model", str(path), versions)
        self.repository = Repository(
            [self.config], self.loader, policy, self.count_change, warm_up or (lambda *_: None)
        )

    def count_change(self):
        self.changes += 1

    def add(self, *numbers):
        for number in numbers:
            (self.path / str(number)).mkdir()

    def states(self):
        return [(number, state) for number, state, _ in self.repository.versions("model")]

    def available(self):
        return [number for number, state in self.states() if state is State.AVAILABLE]


@pytest.fixture
def watch(tmp_path):
    """Starts a Folder's repository, and closes it in the end."""
    watched = []

    def start(**options):
        watched.append(Folder(tmp_path / "model", **options))
        watched[-1].repository.start()
        return watched[-1]

    yield start
    for folder in watched:
        folder.repository.close()


@pytest.fixture
def folder(watch):
    return watch()


def test_only_folders_named_by_digits_count(tmp_path):
    # \u0667 is a digit, of another script
    for name in ("1", "0012", "v3", "-4", "5.0", "6 ", "\u0667", "9" * 30, ".8", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "9").write_text("a file")
    assert find_versions(str(tmp_path)) == {1: str(tmp_path / "1"), 12: str(tmp_path / "0012")}
    assert find_versions(str(tmp_path / "absent")) is None


def test_two_folders_for_one_number(tmp_path):
    for name in ("3", "003", "03"):
        (tmp_path / name).mkdir()
    assert find_versions(str(tmp_path)) == {3: str(tmp_path / "3")}


def test_the_newest_version_takes_over(folder, make_spec, eventually):
    folder.add(2)
    eventually(folder.repository.all_available)
    folder.add(1, 10)
    eventually(lambda: folder.states() == [(10, State.AVAILABLE), (2, State.END)])
    with folder.repository.lease(make_spec()) as version:
        assert version.number == 10
    assert folder.loader.attempts == ["model/2", "model/10"]
    eventually(lambda: folder.changes == 3)  # two came, one went


def test_a_version_in_use_is_unloaded_when_its_last_request_ends(folder, make_spec, eventually):
    folder.add(1)
    eventually(folder.repository.all_available)
    with folder.repository.lease(make_spec()) as first:
        with folder.repository.lease(make_spec(version=1)):
            folder.add(2)
            eventually(lambda: folder.states() == [(2, State.AVAILABLE), (1, State.UNLOADING)])
            with pytest.raises(StatusError, match=r"Specific\(model, 1\)"):
                folder.repository.lease(make_spec(version=1))
        servable = first.servable
        assert not servable.closed.is_set()
    assert servable.closed.wait(DEADLINE)
    eventually(lambda: folder.states() == [(2, State.AVAILABLE), (1, State.END)])
    assert first.servable is None


def test_requests_never_wait_for_loading(folder, make_spec, eventually):
    folder.add(1)
    eventually(folder.repository.all_available)
    hold = folder.loader.hold("model/2")
    folder.add(2)
    assert hold.reached.wait(DEADLINE)
    assert folder.states() == [(2, State.LOADING), (1, State.AVAILABLE)]
    with folder.repository.lease(make_spec()) as version:
        assert version.number == 1
    with pytest.raises(StatusError, match=r"Specific\(model, 2\)"):
        folder.repository.lease(make_spec(version=2))
    hold.release.set()
    eventually(lambda: folder.states() == [(2, State.AVAILABLE), (1, State.END)])


def test_a_version_that_fails_leaves_the_running_one_alone(folder, eventually):
    folder.add(1)
    eventually(folder.repository.all_available)
    folder.loader.failures["model/2"] = FOR_EVER
    folder.add(2)
    eventually(lambda: folder.loader.attempts == ["model/1"] + ["model/2"] * 3)  # once, and two retries
    eventually(lambda: folder.states() == [(2, State.END), (1, State.AVAILABLE)])
    number, _, error = folder.repository.versions("model")[0]
    assert (number, error.code, error.message) == (2, grpc.StatusCode.DATA_LOSS, "torn")
    assert folder.repository.failures() == []  # the model can answer
    folder.add(3)
    eventually(lambda: (3, State.AVAILABLE) in folder.states() and (1, State.END) in folder.states())
    assert folder.loader.attempts == ["model/1", "model/2", "model/2", "model/2", "model/3"]


@pytest.mark.parametrize("failures", [1, 2])
def test_a_version_that_fails_at_first_is_tried_again(folder, eventually, failures):
    folder.loader.failures["model/1"] = failures
    folder.add(1)
    assert folder.repository.wait_until_settled(DEADLINE)
    assert folder.repository.versions("model") == [(1, State.AVAILABLE, None)]
    assert len(folder.loader.attempts) == 1 + failures


def test_while_it_waits_for_its_next_try_the_status_shows_why(watch, eventually):
    folder = watch(policy=LoadPolicy(poll_seconds=0.005, max_retries=1, retry_seconds=3600))
    folder.loader.failures["model/1"] = FOR_EVER
    folder.add(1)
    eventually(lambda: folder.states() == [(1, State.END)])
    assert folder.repository.versions("model")[0][2].message == "torn"
    assert not folder.repository.wait_until_settled(0)
    assert folder.repository.failures() == []  # it is not the end yet


def test_a_version_that_recovers_takes_over(folder, eventually):
    folder.add(1)
    eventually(folder.repository.all_available)
    folder.loader.failures["model/2"] = 3
    folder.add(2)
    eventually(lambda: folder.loader.attempts.count("model/2") == 3)
    (folder.path / "2").rmdir()
    eventually(lambda: folder.repository._models["model"].versions[2].failures == 0)
    folder.add(2)
    eventually(lambda: folder.states() == [(2, State.AVAILABLE), (1, State.END)])
    assert folder.repository.versions("model")[0][2] is None


def test_a_newest_version_taken_away_brings_back_the_one_before(folder, eventually):
    folder.add(2)
    eventually(folder.repository.all_available)
    folder.add(1)
    (folder.path / "2").rmdir()
    eventually(lambda: folder.states() == [(2, State.END), (1, State.AVAILABLE)])


def test_an_empty_base_path_says_to_serve_nothing(folder, eventually):
    folder.add(1)
    eventually(folder.repository.all_available)
    (folder.path / "1").rmdir()
    eventually(lambda: folder.states() == [(1, State.END)])
    assert not folder.repository.all_available()


def test_a_base_path_out_of_reach_changes_nothing(folder, eventually, monkeypatch):
    folder.add(1)
    eventually(folder.repository.all_available)
    looks = []

    def find_and_note(path):
        found = find_versions(path)
        if path == str(folder.path):
            looks.append(found)
        return found

    monkeypatch.setattr(lifecycle, "find_versions", find_and_note)
    folder.path.rename(folder.path.parent / "away")
    eventually(lambda: looks[-3:] == [None] * 3)
    assert folder.states() == [(1, State.AVAILABLE)]


def test_a_model_that_never_loads_is_settled_in_the_end(folder):
    folder.loader.failures["model/1"] = FOR_EVER
    folder.add(1)
    assert folder.repository.wait_until_settled(DEADLINE)
    ((name, error),) = folder.repository.failures()
    assert (name, error.message) == ("model", "torn")
    assert not folder.repository.all_available()


def test_an_exception_of_any_kind_is_an_error_of_the_version(tmp_path):
    (tmp_path / "1").mkdir()

    def load(path):
        raise KeyError("surprise")

    watching = Repository([("model", str(tmp_path))], load, LoadPolicy(max_retries=0))
    watching.start()
    assert watching.wait_until_settled(DEADLINE)
    assert "surprise" in watching.failures()[0][1].message
    assert watching.close()


class TestVersionSets:
    @pytest.mark.parametrize(
        ("versions", "wanted"),
        [
            (VersionPolicy(), [7]),
            (VersionPolicy(latest=2), [7, 5]),
            (VersionPolicy(latest=9), [7, 5, 2, 1]),
            (VersionPolicy(latest=None), [7, 5, 2, 1]),
            (VersionPolicy(specific=frozenset([1, 5])), [5, 1]),
            (VersionPolicy(specific=frozenset([2, 6])), [2]),
        ],
    )
    def test_of_each_policy(self, watch, make_spec, eventually, versions, wanted):
        folder = watch(versions=versions)
        folder.add(1, 2, 5, 7)
        eventually(lambda: folder.available() == wanted)
        for number in wanted:
            with folder.repository.lease(make_spec(version=number)) as version:
                assert version.number == number
        with folder.repository.lease(make_spec()) as version:
            assert version.number == wanted[0]

    def test_swap_only_when_the_new_can_answer(self, watch, eventually):
        folder = watch(versions=VersionPolicy(latest=2))
        folder.add(1, 2)
        eventually(lambda: folder.available() == [2, 1])
        hold = folder.loader.hold("model/4")  # the newest is loaded first
        folder.add(4, 3)
        assert hold.reached.wait(DEADLINE)
        assert folder.available() == [2, 1]
        hold.release.set()
        eventually(lambda: folder.available() == [4, 3])
        assert {2: State.END, 1: State.END}.items() <= dict(folder.states()).items()

    def test_that_fails_in_part_is_served_in_part(self, watch, eventually):
        folder = watch(versions=VersionPolicy(latest=2))
        folder.add(1)
        eventually(folder.repository.all_available)
        folder.loader.failures["model/3"] = FOR_EVER
        folder.add(2, 3)
        eventually(lambda: folder.states() == [(3, State.END), (2, State.AVAILABLE), (1, State.END)])

    def test_that_fails_as_a_whole_leaves_the_running_one_alone(self, watch, eventually):
        folder = watch(versions=VersionPolicy(latest=2))
        folder.add(1)
        eventually(folder.repository.all_available)
        folder.loader.failures.update({"model/2": FOR_EVER, "model/3": FOR_EVER})
        folder.add(2, 3)
        eventually(lambda: len(folder.loader.attempts) >= 7)
        eventually(lambda: folder.states() == [(3, State.END), (2, State.END), (1, State.AVAILABLE)])

    def test_of_a_version_that_is_not_there_yet_keeps_what_runs(self, folder, eventually):
        folder.add(1)
        eventually(folder.repository.all_available)
        hold = folder.loader.hold("model/2")
        folder.repository.configure([folder.config._replace(policy=VersionPolicy(specific=frozenset([2])))])
        folder.add(2)
        assert hold.reached.wait(DEADLINE)
        assert folder.available() == [1]
        hold.release.set()
        eventually(lambda: folder.states() == [(2, State.AVAILABLE), (1, State.END)])

    def test_of_none_serves_nothing(self, folder, eventually):
        folder.add(1)
        eventually(folder.repository.all_available)
        folder.repository.configure([folder.config._replace(policy=VersionPolicy(specific=frozenset()))])
        eventually(lambda: folder.states() == [(1, State.END)])

    def test_take_back_a_version_that_was_on_its_way_out(self, folder, make_spec, eventually):
        folder.add(1)
        eventually(folder.repository.all_available)
        with folder.repository.lease(make_spec()):
            folder.add(2)
            eventually(lambda: folder.states() == [(2, State.AVAILABLE), (1, State.UNLOADING)])
            folder.repository.configure([folder.config._replace(policy=VersionPolicy(latest=None))])
            eventually(lambda: folder.available() == [2, 1])
        assert folder.loader.attempts == ["model/1", "model/2"]
        assert not folder.loader.loaded["model/1"].closed.is_set()


class TestWarmUp:
    def test_comes_before_the_first_request(self, watch, make_spec, eventually):
        hold, warmed = Hold(), []

        def warm_up(servable, path):
            warmed.append((servable.path, path))
            hold.wait()

        folder = watch(warm_up=warm_up)
        folder.add(1)
        assert hold.reached.wait(DEADLINE)
        assert warmed == [(str(folder.path / "1"), str(folder.path / "1"))]
        assert folder.states() == [(1, State.LOADING)]
        with pytest.raises(StatusError, match="not found"):
            folder.repository.lease(make_spec())
        hold.release.set()
        eventually(lambda: folder.available() == [1])

    def test_that_fails_is_a_load_that_fails(self, watch, eventually):
        def warm_up(servable, path):
            if path.endswith("2"):
                raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "too cold")

        folder = watch(warm_up=warm_up)
        folder.add(1)
        eventually(folder.repository.all_available)
        folder.add(2)
        eventually(lambda: folder.loader.attempts.count("model/2") == 3)
        eventually(lambda: folder.states() == [(2, State.END), (1, State.AVAILABLE)])
        assert folder.repository.versions("model")[0][2].message == "too cold"
        assert folder.loader.loaded["model/2"].closed.is_set()


def test_without_polling_it_looks_until_there_is_a_version(watch, eventually, monkeypatch):
    monkeypatch.setattr(lifecycle, "_LOOK_AGAIN_SECONDS", 0.005)
    looks = []
    monkeypatch.setattr(lifecycle, "find_versions", lambda path: looks.append(path) or find_versions(path))
    folder = watch(policy=LoadPolicy(poll_seconds=0))
    eventually(lambda: len(looks) > 3)
    folder.add(1)
    watched = folder.repository._lifecycles["model"]
    eventually(lambda: watched._looked is watched.model.config)
    folder.add(2)
    looks.clear()
    folder.repository.configure([folder.config._replace(labels={"stable": 1})])  # so it looks once more
    eventually(lambda: folder.states() == [(2, State.AVAILABLE), (1, State.END)])
    assert looks.count(folder.config.base_path) == 1  # others look at folders of their own


def test_versions_that_have_ended_are_kept_to_a_number(folder, eventually):
    swaps = MAX_ENDED + 20
    folder.add(1)
    for number in range(1, swaps):
        eventually(lambda: folder.available() == [number])  # noqa: B023 - called here
        (folder.path / str(number)).rename(folder.path / str(number + 1))
    eventually(lambda: folder.available() == [swaps])
    eventually(lambda: folder.states()[1:] == [(n, State.END) for n in range(swaps - 1, 19, -1)])
    assert all(
        named.closed.is_set() for key, named in folder.loader.loaded.items() if key != f"model/{swaps}"
    )


def test_a_version_is_never_closed_under_a_request(folder, make_spec, eventually):
    folder.add(1)
    eventually(folder.repository.all_available)
    stop, seen = threading.Event(), set()

    def request_until_stopped():
        while not stop.is_set():
            with folder.repository.lease(make_spec()) as version:
                servable = version.servable
                assert servable.path.endswith(f"/{version.number}")
                assert not servable.closed.is_set()
                seen.add(version.number)
                with folder.repository.lease(make_spec()):  # gives others their chance
                    assert not servable.closed.is_set()

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(request_until_stopped) for _ in range(3)]
        try:
            for number in range(2, 40):
                folder.add(number)
                eventually(lambda: number in seen)  # noqa: B023 - called here
        finally:
            stop.set()
        for caller in callers:
            caller.result()
    eventually(
        lambda: folder.states() == [(39, State.AVAILABLE), *((n, State.END) for n in range(38, 0, -1))]
    )


def test_whoever_hears_of_a_change_may_wait_for_one_who_takes_a_version(tmp_path, make_spec):
    """As the health service does, which is set in the event loop, where versions are taken."""
    (tmp_path / "1").mkdir()
    numbers = []

    def take():
        with repository.lease(make_spec()) as version:
            numbers.append(version.number)

    def on_change():
        with concurrent.futures.ThreadPoolExecutor(1) as other:
            other.submit(take).result(DEADLINE)

    repository = Repository([("model", str(tmp_path))], Loader(), QUICK, on_change)
    repository.start()
    assert repository.wait_until_settled(DEADLINE)
    assert numbers == [1]  # it was told before anybody who waits
    assert repository.close()


def test_close_reports_what_is_still_in_use(folder, make_spec, eventually):
    folder.add(1)
    eventually(folder.repository.all_available)
    with folder.repository.lease(make_spec()) as version:
        servable = version.servable
        assert not folder.repository.close()
        assert not servable.closed.is_set()
        with pytest.raises(StatusError, match="not found"):
            folder.repository.lease(make_spec())
    assert folder.repository.close()
    assert servable.closed.is_set()


def test_close_does_not_wait_for_a_load_that_hangs(folder, eventually):
    hold = folder.loader.hold("model/1")
    folder.add(1)
    assert hold.reached.wait(DEADLINE)
    assert not folder.repository.close(timeout=0.01)
    hold.release.set()
    eventually(folder.repository.close)
    assert folder.loader.loaded["model/1"].closed.is_set()
    assert folder.states() == [(1, State.END)]
