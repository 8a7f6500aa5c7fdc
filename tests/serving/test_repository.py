"""The life of versions, with servables that are only names."""

import os
import threading

import grpc
import pytest

from serving import repository
from serving.repository import LoadPolicy, Repository
from serving.rpc import StatusError
from serving.versions import State, find_versions


class Named:
    """A servable that knows where it came from and whether it was closed."""

    def __init__(self, path):
        self.path = path
        self.closed = threading.Event()

    def close(self):
        self.closed.set()


class Folder:
    """A base path with a repository that watches it. Loading a version in `failing` fails."""

    def __init__(self, path):
        self.path = path
        self.failing = set()
        self.attempts = []
        self.changes = 0
        policy = LoadPolicy(poll_seconds=0.005, max_retries=2, retry_seconds=0.01)
        self.repository = Repository([("model", str(path))], self.load, policy, self.count_change)

    def load(self, path):
        number = int(os.path.basename(path))
        self.attempts.append(number)
        if number in self.failing:
            raise StatusError(grpc.StatusCode.DATA_LOSS, "torn")
        return Named(path)

    def count_change(self):
        self.changes += 1

    def states(self):
        return [(number, state) for number, state, _ in self.repository.versions("model")]


@pytest.fixture
def folder(tmp_path):
    watched = Folder(tmp_path / "base")
    watched.path.mkdir()
    watched.repository.start()
    yield watched
    watched.repository.close()


def test_only_folders_named_by_digits_count(tmp_path):
    # \u0667 is a digit, of another script
    for name in ("1", "0012", "v3", "-4", "5.0", "6 ", "\u0667", "9" * 30, ".8", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "9").write_text("a file")
    assert find_versions(str(tmp_path)) == {1: str(tmp_path / "1"), 12: str(tmp_path / "0012")}
    assert find_versions(str(tmp_path / "absent")) is None


def test_the_newest_version_takes_over(folder, make_spec, eventually):
    (folder.path / "2").mkdir()
    eventually(folder.repository.all_available)
    (folder.path / "1").mkdir()
    (folder.path / "10").mkdir()
    eventually(lambda: folder.states() == [(10, State.AVAILABLE), (2, State.END)])
    with folder.repository.lease(make_spec()) as version:
        assert version.number == 10
    assert folder.attempts == [2, 10]
    assert folder.changes == 3  # two came, one went


def test_a_version_in_use_is_unloaded_when_its_last_request_ends(folder, make_spec, eventually):
    (folder.path / "1").mkdir()
    eventually(folder.repository.all_available)
    with folder.repository.lease(make_spec()) as first:
        with folder.repository.lease(make_spec(version=1)):
            (folder.path / "2").mkdir()
            eventually(lambda: folder.states() == [(2, State.AVAILABLE), (1, State.UNLOADING)])
            with pytest.raises(StatusError, match=r"Specific\(model, 1\)"):
                folder.repository.lease(make_spec(version=1))
        servable = first.servable
        assert not servable.closed.is_set()
    assert servable.closed.wait(10)
    eventually(lambda: folder.states() == [(2, State.AVAILABLE), (1, State.END)])
    assert first.servable is None


def test_a_version_that_fails_leaves_the_running_one_alone(folder, make_spec, eventually):
    (folder.path / "1").mkdir()
    eventually(folder.repository.all_available)
    folder.failing.add(2)
    (folder.path / "2").mkdir()
    eventually(lambda: folder.attempts == [1, 2, 2, 2])  # once, and two retries
    eventually(lambda: folder.states() == [(2, State.END), (1, State.AVAILABLE)])
    number, _, error = folder.repository.versions("model")[0]
    assert (number, error.code, error.message) == (2, grpc.StatusCode.DATA_LOSS, "torn")
    assert folder.repository.failures() == []  # the model can answer
    (folder.path / "3").mkdir()
    eventually(lambda: (3, State.AVAILABLE) in folder.states() and (1, State.END) in folder.states())
    assert folder.attempts == [1, 2, 2, 2, 3]


def test_a_version_that_recovers_takes_over(folder, eventually):
    (folder.path / "1").mkdir()
    eventually(folder.repository.all_available)
    folder.failing.add(2)
    (folder.path / "2").mkdir()
    eventually(lambda: folder.attempts.count(2) == 3)
    (folder.path / "2").rmdir()
    eventually(lambda: folder.repository._models["model"].versions[2].failures == 0)
    folder.failing.clear()
    (folder.path / "2").mkdir()
    eventually(lambda: folder.states() == [(2, State.AVAILABLE), (1, State.END)])
    assert folder.repository.versions("model")[0][2] is None


def test_a_newest_version_taken_away_brings_back_the_one_before(folder, eventually):
    (folder.path / "2").mkdir()
    eventually(folder.repository.all_available)
    (folder.path / "1").mkdir()
    (folder.path / "2").rmdir()
    eventually(lambda: folder.states() == [(2, State.END), (1, State.AVAILABLE)])


def test_an_empty_base_path_says_to_serve_nothing(folder, eventually):
    (folder.path / "1").mkdir()
    eventually(folder.repository.all_available)
    (folder.path / "1").rmdir()
    eventually(lambda: folder.states() == [(1, State.END)])
    assert not folder.repository.all_available()


def test_a_base_path_out_of_reach_changes_nothing(folder, eventually, monkeypatch):
    (folder.path / "1").mkdir()
    eventually(folder.repository.all_available)
    looks = []

    def find_and_note(path):
        found = find_versions(path)
        if path == str(folder.path):
            looks.append(found)
        return found

    monkeypatch.setattr(repository, "find_versions", find_and_note)
    folder.path.rename(folder.path.parent / "away")
    eventually(lambda: looks[-3:] == [None] * 3)
    assert folder.states() == [(1, State.AVAILABLE)]


def test_a_model_that_never_loads_is_settled_in_the_end(folder):
    folder.failing.add(1)
    (folder.path / "1").mkdir()
    assert folder.repository.wait_until_settled(60)
    ((name, error),) = folder.repository.failures()
    assert (name, error.message) == ("model", "torn")
    assert not folder.repository.all_available()


def test_an_exception_of_any_kind_is_an_error_of_the_version(tmp_path, eventually):
    (tmp_path / "1").mkdir()

    def load(path):
        raise KeyError("surprise")

    watching = Repository([("model", str(tmp_path))], load, LoadPolicy(max_retries=0))
    watching.start()
    assert watching.wait_until_settled(60)
    assert "surprise" in watching.failures()[0][1].message
    assert watching.close()


def test_close_reports_what_is_still_in_use(folder, make_spec, eventually):
    (folder.path / "1").mkdir()
    eventually(folder.repository.all_available)
    with folder.repository.lease(make_spec()) as version:
        servable = version.servable
        assert not folder.repository.close()
        assert not servable.closed.is_set()
    assert folder.repository.close()
    assert servable.closed.is_set()
