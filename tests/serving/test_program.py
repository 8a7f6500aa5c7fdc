"""What all programs share."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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
