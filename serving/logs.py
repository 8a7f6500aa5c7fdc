"""The server's log as JSON, a line a message, for programs that collect logs."""

from __future__ import annotations

import datetime
import json
import logging as python_logging
import traceback

from absl import logging


class JsonFormatter(python_logging.Formatter):
    """`time` in UTC, `severity`, `message` and `source`, and `exception` where there is one."""

    def format(self, record: python_logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "severity": record.levelname,
            "message": record.getMessage(),
            "source": f"{record.filename}:{record.lineno}",
        }
        if record.exc_info:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line)


def write_json() -> None:
    """From now on, for all messages."""
    logging.get_absl_handler().setFormatter(JsonFormatter())
