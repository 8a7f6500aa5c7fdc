"""An authority, and certificates of its making and of nobody's, for encrypted connections."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

DEADLINE = 60
_NEW = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")


def make_certificates(folder: Path) -> Path:
    """Fills a folder with an authority `ca`, a `server` and a `caller` of its, and `other`, of nobody's."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")

    def make(name: str, *options: str) -> None:
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        command = ["openssl", *_NEW, "-subj", f"/CN={name}", *options, *files]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=DEADLINE)

    for name in ("ca", "other"):
        make(name)
    for name in ("server", "caller"):
        make(name, "-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1")
    return folder
