"""Public data sets from a server of the test's own: whole, broken off, changed, and out of archives."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import re
import tarfile
import threading
import zipfile
from typing import ClassVar

import pytest
from opened import configured

from serving.program import UserError
from training.datasets import FORMATS, open_dataset
from training.datasets.download import extract, fetch
from training.datasets.public import PUBLIC, File, Published

CONTENT = bytes(range(256)) * 5000


class Server:
    """Files by path; counts requests, and may break off, ignore ranges, or have no length."""

    def __init__(self):
        self.files, self.requests = {}, []
        self.break_after = None
        self.ranges, self.lengths = True, True
        handler = functools.partial(_Handler, self)
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, server, *arguments):
        self.own = server
        super().__init__(*arguments)

    def do_GET(self):
        asked = self.headers.get("Range")
        self.own.requests.append((self.path, asked))
        content = self.own.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.own.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if self.own.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = self.own.break_after
        self.own.break_after = None
        self.wfile.write(content[start:end])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = Server()
    server.files["/a.bin"] = CONTENT
    yield server
    server.http.shutdown()
    server.http.server_close()


def complaint(*arguments):
    with pytest.raises(UserError) as raised:
        fetch(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


class TestFetch:
    def test_once(self, server, tmp_path, capsys):
        path = tmp_path / "deep" / "a.bin"
        checksum = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
        for _ in range(2):
            assert fetch(f"{server.url}/a.bin", path, checksum).read_bytes() == CONTENT
        assert server.requests == [("/a.bin", None)]
        assert "a.bin" in capsys.readouterr().err
        assert [each.name for each in path.parent.iterdir()] == ["a.bin"]

    def test_goes_on_where_it_broke_off(self, server, tmp_path):
        server.break_after = 300_000
        message = complaint(f"{server.url}/a.bin", tmp_path / "a.bin")
        assert "the connection ended after 300,000 of 1,280,000 bytes" in message
        assert str(tmp_path / "a.bin") in message
        assert not (tmp_path / "a.bin").exists()
        assert fetch(f"{server.url}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT
        assert server.requests[1] == ("/a.bin", "bytes=300000-")

    def test_starts_anew_where_the_server_knows_no_ranges(self, server, tmp_path):
        (tmp_path / "a.bin.partial").write_bytes(b"x" * 1000)
        server.ranges = False
        assert fetch(f"{server.url}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT

    def test_what_was_fetched_whole_but_not_moved(self, server, tmp_path):
        (tmp_path / "a.bin.partial").write_bytes(CONTENT)
        assert fetch(f"{server.url}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT

    def test_without_a_length(self, server, tmp_path):
        server.lengths = False
        assert fetch(f"{server.url}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT

    def test_another_file_than_was_published_is_thrown_away(self, server, tmp_path):
        message = complaint(f"{server.url}/a.bin", tmp_path / "a.bin", "md5:" + "0" * 32)
        assert f"its md5 is {hashlib.md5(CONTENT).hexdigest()}, not 000" in message
        assert list(tmp_path.iterdir()) == []

    def test_what_is_not_there(self, server, tmp_path):
        assert "could not be fetched (Not Found)" in complaint(f"{server.url}/b.bin", tmp_path / "b.bin")

    def test_no_network(self, server, tmp_path):
        server.http.shutdown()
        server.http.server_close()
        message = complaint(f"{server.url}/a.bin", tmp_path / "a.bin")
        assert "Connection refused" in message
        assert f"put it to {tmp_path / 'a.bin'}" in message


def archive(kind, files):
    packed = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(packed, "w") as made:
            for name, content in files.items():
                made.writestr(name, content)
    else:
        with tarfile.open(fileobj=packed, mode="w:gz") as made:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                made.addfile(info, io.BytesIO(content.encode()))
    return packed.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
class TestExtract:
    FILES: ClassVar = {"x/a.txt": "first", "x/b/c.txt": "second", "x/d/e.txt": "third", "xy/f.txt": "fourth"}

    def packed(self, kind, tmp_path, files=None):
        path = tmp_path / f"a.{kind}"
        path.write_bytes(archive(kind, files or self.FILES))
        return path

    def test_a_file(self, kind, tmp_path):
        path = self.packed(kind, tmp_path)
        for _ in range(2):
            assert extract(path, "x/b/c.txt", tmp_path / "out").read_text() == "second"
            path.write_bytes(b"no more")  # it is not read again

    @pytest.mark.parametrize(
        ("only", "names"), [((), ["a.txt", "b/c.txt", "d/e.txt"]), (("b",), ["b/c.txt"])]
    )
    def test_a_folder(self, kind, tmp_path, only, names):
        folder = extract(self.packed(kind, tmp_path), "x", tmp_path / "out", only)
        assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*.txt")) == names
        assert [each.name for each in (tmp_path / "out").iterdir()] == ["x"]

    def test_what_is_wrong(self, kind, tmp_path):
        path = self.packed(kind, tmp_path)
        with pytest.raises(UserError, match="holds no z"):
            extract(path, "z", tmp_path / "out")
        outside = self.packed(kind, tmp_path, {"x/../../evil.txt": "evil"})
        with pytest.raises(UserError, match="is no path inside of it"):
            extract(outside, "x", tmp_path / "out")
        assert not (tmp_path / "evil.txt").exists()
        path.write_bytes(self.packed(kind, tmp_path).read_bytes()[:-30])
        with pytest.raises(UserError, match="is damaged"):
            extract(path, "x", tmp_path / "out")
        assert not (tmp_path / "out" / "x").exists()


class TestPublicSets:
    def load(self, published, split, tmp_path, monkeypatch, **settings):
        monkeypatch.setitem(PUBLIC, "made_up", published)
        config = configured("made_up", data_dir=str(tmp_path / "cache"), **settings)
        return [
            {name: value.decode() for name, value in record.items()}
            for record in open_dataset(config).load(split).as_numpy_iterator()
        ]

    def test_folders_of_an_archive(self, server, tmp_path, monkeypatch, capsys):
        files = {
            f"m/{s}/{k}/{n}.txt": f"{s} {k} {n}"
            for s in ("train", "test")
            for k in ("neg", "pos", "unsup")
            for n in range(5)
        }
        server.files["/m.tar.gz"] = archive("tar.gz", files)
        splits = {
            s: (File(f"{server.url}/m.tar.gz", member=f"m/{s}", only=("neg", "pos")),)
            for s in ("train", "test")
        }
        published = Published("text_dir", splits, "to be read by anyone")
        settings = {"task": "classification", "validation_fraction": 0.2}
        parts = [
            self.load(published, split, tmp_path, monkeypatch, **settings)
            for split in ("train", "validation", "test")
        ]
        assert [len(part) for part in parts] == [8, 2, 10]
        assert {record["label"] for part in parts for record in part} == {"neg", "pos"}
        assert all(record["text"].startswith(f"test {record['label']}") for record in parts[2])
        assert len(server.requests) == 1
        assert "licence: to be read by anyone" in capsys.readouterr().err

    def test_a_split_is_fetched_only_when_it_is_used(self, server, tmp_path, monkeypatch):
        server.files |= {"/train.de.gz": gzip.compress(b"eins\n"), "/train.en.gz": gzip.compress(b"one\n")}
        files = {
            s: tuple(File(f"{server.url}/{s}.{lang}.gz") for lang in ("de", "en"))
            for s in ("train", "validation")
        }
        published = Published("parallel", files, "none")
        assert self.load(published, "train", tmp_path, monkeypatch) == [
            {"text": "eins", "translation": "one"}
        ]
        with pytest.raises(UserError, match="could not be fetched"):
            self.load(published, "validation", tmp_path, monkeypatch)
        with pytest.raises(UserError, match="made_up has no test split with answers"):
            self.load(published, "test", tmp_path, monkeypatch)

    def test_columns_of_its_own(self, server, tmp_path, monkeypatch):
        server.files["/a.csv"] = b'"3","title","text, quoted"\n"4","other","more"\n'
        published = Published(
            "csv",
            {"train": (File(f"{server.url}/a.csv"),)},
            "none",
            {"text_column": "3", "label_column": "1"},
        )
        settings = {"task": "classification", "validation_fraction": 0.5}
        both = [
            self.load(published, split, tmp_path, monkeypatch, **settings)[0]
            for split in ("train", "validation")
        ]
        assert sorted(record["label"] for record in both) == ["3", "4"]

    @pytest.mark.parametrize("name", PUBLIC)
    def test_are_described_whole(self, name):
        published = PUBLIC[name]
        assert published.format in FORMATS
        assert published.licence
        assert "train" in published.splits
        for file in (file for files in published.splits.values() for file in files):
            assert file.url.startswith("https://")
            assert re.fullmatch(r"|md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", file.checksum)
        known = vars(configured(name))
        assert set(published.settings) <= set(known)

    def test_all_that_were_promised(self):
        texts = "imdb sst2 ag_news wikitext2 wikitext103 ptb tiny_shakespeare lm1b"
        assert set(PUBLIC) == {*texts.split(), "ud_english_ewt", "wnut17", "multi30k", "squad"}
