"""A few hundred of the malformed requests that benchmarks/fuzz_server.py has thousands of."""

import json
import subprocess
import sys
from pathlib import Path

from tiny import DEADLINE

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz_server.py"


def test_whose_fault_it_is(publish, exports, tmp_path):
    publish(exports["language"], tmp_path, 1)
    command = [sys.executable, str(SCRIPT), f"--model_base_path={tmp_path}", "--cases=600", "--seed=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["cases"], result["exit"]) == (600, 0)
    assert {"200", "400", "OK", "INVALID_ARGUMENT", "NOT_FOUND"} <= set(result["codes"])
