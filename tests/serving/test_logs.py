"""Log lines as JSON, as a program prints them."""

import datetime
import json
import subprocess
import sys

CODE = """
from absl import flags, logging
from serving import logs
flags.FLAGS(["program"])
logging.use_absl_handler()
logging.set_verbosity(logging.INFO)
logs.write_json()
logging.info("loaded %s, \\u00e9\\n twice", "a")
try:
    1 / 0
except ZeroDivisionError:
    logging.exception("failed")
"""


def test_a_line_a_message():
    before = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=1)
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60
    )
    first, second = map(json.loads, done.stderr.splitlines())
    assert (first["severity"], first["message"]) == ("INFO", "loaded a, é\n twice")
    assert (
        before < datetime.datetime.fromisoformat(first["time"]) < datetime.datetime.now(datetime.timezone.utc)
    )
    assert first["source"] == "<string>:8"
    assert (second["severity"], second["message"]) == ("ERROR", "failed")
    assert second["exception"].endswith("ZeroDivisionError: division by zero\n")
