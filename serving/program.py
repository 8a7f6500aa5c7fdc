"""How every program of the zoo starts, fails and stops.

A program is a module with a docstring (its help text), absl flags, and a function
`main(arguments)` that takes the words after the flags. Exit codes: 0 success, 1 failure,
2 a command line that cannot be understood, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Sequence

# TensorFlow's start-up remarks would bury our own messages. Set before it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import flags, logging


class UserError(Exception):
    """Something the user can put right; shown as one line, without a traceback."""


def run(
    name: str,
    main: Callable[[Sequence[str]], None],
    description: str,
    flag_modules: Sequence[str],
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the command line, call `main`, and end the process with the right exit code.

    `flag_modules` names the modules whose flags `--help` shows, in that order.
    """
    argv = sys.argv if argv is None else argv
    if any(word in ("--help", "-h", "-help") for word in argv[1:]):
        print(help_text(description, flag_modules))
        sys.exit(0)
    try:
        arguments = flags.FLAGS(list(argv))[1:]
    except flags.Error as error:
        _fail(name, f"{error} (try {name} --help)", 2)
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    try:
        main(arguments)
    except (UserError, OSError) as error:
        _fail(name, str(error), 1)
    except KeyboardInterrupt as interrupt:
        _fail(name, str(interrupt) or "interrupted", 130)


def _fail(name: str, message: str, code: int) -> None:
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr, flush=True)
    sys.exit(code)


def help_text(description: str, flag_modules: Sequence[str]) -> str:
    """The program's docstring, then one paragraph a flag: name, default, meaning."""
    flags_by_module = flags.FLAGS.flags_by_module_dict()
    paragraphs = [textwrap.dedent(description).strip(), "", "Flags:"]
    for module in flag_modules:
        for flag in flags_by_module.get(module, []):
            paragraphs.append(_flag_help(flag))
    return "\n".join(paragraphs)


def _flag_help(flag: flags.Flag) -> str:
    default = "" if flag.default is None else str(flag.value if flag.value is not None else flag.default)
    choices = getattr(flag.parser, "enum_values", None)
    meaning = " ".join((flag.help or "").split())
    if choices and not all(choice in meaning for choice in choices):
        meaning += f" One of: {', '.join(choices)}."
    return f"  --{flag.name}={default}\n" + textwrap.fill(
        meaning, width=96, initial_indent=" " * 8, subsequent_indent=" " * 8
    )
