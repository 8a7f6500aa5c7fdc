"""Files from the network, fetched once and kept: resumed where they broke off, and checked."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tqdm import tqdm

from serving.program import UserError

BLOCK_BYTES = 1 << 18
TIMEOUT_SECONDS = 60


def fetch(url: str, path: Path, checksum: str = "") -> Path:
    """The file at a URL, at `path`, where it stays; what was fetched of it before is not fetched again.

    Args:
        checksum: "sha256:..." or "md5:...", as published; empty where none is.

    Raises:
        UserError: the network or the server does not give it, or it is not what it should be.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        _download(url, partial)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{url} could not be fetched ({reason}); the same command goes on from where it broke off. "
            f"Without a network, fetch it elsewhere and put it to {path}"
        ) from error
    _check(partial, checksum, url)
    os.replace(partial, path)
    return path


def _download(url: str, partial: Path) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing after what we have
            return
        raise
    with response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length else None
        _copy(response, partial, "ab" if resumed else "wb", total, have if resumed else 0)
    if total is not None and partial.stat().st_size < total:
        raise ConnectionError(f"the connection ended after {partial.stat().st_size:,} of {total:,} bytes")


def _copy(source: IO[bytes] | Any, path: Path, mode: str, total: int | None, have: int) -> None:
    bar = tqdm(
        total=total,
        initial=have,
        unit="B",
        unit_scale=True,
        desc=path.name.removesuffix(".partial"),
        file=sys.stderr,
    )
    with bar, open(path, mode) as file:
        while block := source.read(BLOCK_BYTES):
            file.write(block)
            bar.update(len(block))


def _check(partial: Path, checksum: str, url: str) -> None:
    if not checksum:
        return
    kind, _, expected = checksum.partition(":")
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(partial, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    if digest.hexdigest() != expected:
        partial.unlink()
        raise UserError(
            f"{url} is not the file that was published: its {kind} is {digest.hexdigest()}, not {expected}; "
            "it was thrown away. Try again; should it be so once more, the file has changed"
        )


def extract(archive: Path, member: str, folder: Path, only: tuple[str, ...] = ()) -> Path:
    """A file or folder of a .zip or tar archive, below `folder`, where it stays.

    With `only`, of a folder nothing but these folders in it.

    Raises:
        UserError: the archive is damaged, or holds no such member.
    """
    path = folder / member
    if path.exists():
        return path
    partial = folder / f".{PurePosixPath(member).name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    wanted = tuple(f"{member}/{name}/" for name in only) or (f"{member}/",)
    found = False
    try:
        for name, source in _files(archive):
            if name != member and not name.startswith(wanted):
                continue
            inside = PurePosixPath(name).relative_to(member)
            if ".." in inside.parts:
                raise UserError(f"{archive}: {name} is no path inside of it")
            place = partial / inside if name != member else partial / "file"
            place.parent.mkdir(parents=True, exist_ok=True)
            with open(place, "wb") as file:
                shutil.copyfileobj(source, file)
            found = True
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{archive} is damaged ({error}); delete it, to have it fetched again") from error
    if not found:
        raise UserError(f"{archive} holds no {member}")
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial / "file" if (partial / "file").exists() else partial, path)
    shutil.rmtree(partial, ignore_errors=True)
    return path


def _files(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of an archive's regular files, in order."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if not info.is_dir():
                    with packed.open(info) as source:
                        yield info.filename, source
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content:
                yield member.name.removeprefix("./"), content
