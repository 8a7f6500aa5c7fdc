"""What all programs share."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from serving import program

FAULTS = """
import resource, sys, threading
from serving import program
if sys.argv[1] == "kept":
    program.keep_freed_memory()
faults = []
def work():
    for _ in range(6):
        block = bytearray(2**27)  # 32,768 pages: more than a thread's own arena could hold
        del block
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(faults[-1] - faults[2])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_freed_memory_is_used_again_without_page_faults():
    kept = subprocess.run(
        [sys.executable, "-c", FAULTS, "kept"], capture_output=True, text=True, check=True, timeout=60
    )
    given_back = subprocess.run(
        [sys.executable, "-c", FAULTS, "given back"], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(kept.stdout) < 100
    assert int(given_back.stdout) > 1000


LOST = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    raise AttributeError("a half imported module") from None
"""
LAUNCH = "from serving import program; program._launch('zoo-x', 'module', uses_tensorflow=False)"


def test_ctrl_c_that_an_import_would_lose(tmp_path):
    (tmp_path / "module.py").write_text(LOST)
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "zoo-x: interrupted\n")


@pytest.mark.parametrize(("first", "code"), [(KeyboardInterrupt, 130), (ValueError, None)])
def test_an_error_that_follows_ctrl_c(capsys, first, code):
    def main(_arguments):
        try:
            raise first
        finally:
            raise RuntimeError("a scope that was left before it was entered")

    with pytest.raises(SystemExit if code else RuntimeError) as raised:
        program.run("zoo-x", main, "", [], ["zoo-x"])
    assert getattr(raised.value, "code", None) == code
    assert capsys.readouterr().err == ("zoo-x: interrupted\n" if code else "")


@pytest.mark.parametrize("name", ["zoo_query", "zoo_train"])
def test_without_a_stderr(name):
    command = [sys.executable, "-c", f"from serving import program; program.{name}()", "--help"]
    shell = subprocess.run(
        ["sh", "-c", '"$@" 2>&-', "sh", *command], capture_output=True, text=True, timeout=60
    )
    assert (shell.returncode, shell.stderr) == (0, "")
    assert "\nFlags:\n" in shell.stdout
