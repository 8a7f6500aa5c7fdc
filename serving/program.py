"""How every program of the zoo starts, fails and stops.

A program is a module with a docstring (its help text), absl flags, and a function
`main(arguments)` that takes the words after the flags. Exit codes: 0 success, 1 failure,
2 a command line that cannot be understood, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

# TensorFlow's start-up remarks would bury our own messages. Set before it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import flags, logging


class UserError(Exception):
    """Something the user can put right; shown as one line, without a traceback."""

    exit_code = 1


class UsageError(UserError):
    """A command line that cannot be understood."""

    exit_code = 2


def zoo_train() -> None:
    _launch("zoo-train", "training.train", uses_tensorflow=True)


def zoo_evaluate() -> None:
    _launch("zoo-evaluate", "training.evaluate", uses_tensorflow=True)


def zoo_export() -> None:
    _launch("zoo-export", "serving.export", uses_tensorflow=True)


def zoo_serve() -> None:
    _launch("zoo-serve", "serving.server")


def zoo_query() -> None:
    _launch("zoo-query", "serving.query")


def _launch(name: str, module: str, uses_tensorflow: bool = False) -> None:
    """Run a program's module; what it imports takes seconds, in which Ctrl-C is to be heeded, too."""
    if sys.stderr is None:  # closed by who started us; what is said to it goes nowhere
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as long as we run
    try:
        with _ended_by_ctrl_c(name):
            if uses_tensorflow:
                keep_freed_memory()
                _quiet_tensorflow()
            program = importlib.import_module(module)
        program.run()
    except KeyboardInterrupt:
        _fail(name, "interrupted", 130)


@contextlib.contextmanager
def _ended_by_ctrl_c(name: str) -> Iterator[None]:
    """Within, Ctrl-C ends the process at once; for imports, of which some lose a KeyboardInterrupt.

    Keras's import of Matplotlib, for one, ended with an AttributeError of a module that was half imported.
    """
    previous = signal.getsignal(signal.SIGINT)
    stderr = os.dup(2)  # of its own, not muted during TensorFlow's import

    def end(_signal: int, _frame: FrameType | None) -> None:
        os.write(stderr, f"{name}: interrupted\n".encode())
        os._exit(130)

    if previous is not signal.SIG_IGN:  # as a script's background jobs have it
        signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        os.close(stderr)


def run(
    name: str,
    main: Callable[[Sequence[str]], None],
    description: str,
    flag_modules: Sequence[str],
    argv: Sequence[str] | None = None,
    known_flags_only: bool = False,
) -> None:
    """Parse the command line, call `main`, and end the process with the right exit code.

    `flag_modules` names the modules whose flags `--help` shows, in that order. With `known_flags_only`
    unknown flags are no error: `main` finds them among its arguments.
    """
    argv = sys.argv if argv is None else argv
    if any(word in ("--help", "-h", "-help") for word in argv[1:]):
        main, argv = (lambda _: print(help_text(description, flag_modules))), argv[:1]
    try:
        arguments = flags.FLAGS(list(argv), known_only=known_flags_only)[1:]
    except flags.Error as error:
        _fail(name, f"{error} (try {name} --help)", 2)
    logging.use_absl_handler()
    try:
        main(arguments)
        sys.stdout.flush()  # here, where a reader that has gone is noticed and reported
    except UserError as error:
        _fail(name, str(error), error.exit_code)
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
        sys.exit(1)
    except OSError as error:
        _fail(name, str(error), 1)
    except KeyboardInterrupt as interrupt:
        _fail(name, str(interrupt) or "interrupted", 130)
    except Exception as error:
        if not _followed_ctrl_c(error):
            raise
        _fail(name, "interrupted", 130)


def _followed_ctrl_c(error: BaseException | None) -> bool:
    """Whether it arose while an interrupt was under way: TensorFlow may leave a scope it has half entered."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


@contextlib.contextmanager
def native_stderr_muted() -> Iterator[None]:
    """Drops what native libraries write to stderr; for TensorFlow's import and its first look at devices.

    Until its logging is initialised TensorFlow heeds no log level. Whoever sets TF_CPP_MIN_LOG_LEVEL
    below 2 wants to see it all, and does.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") < "2":
        yield
        return
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def keep_freed_memory() -> None:
    """Have glibc keep what is freed: each training step asks for the same blocks again.

    Given back to the system and asked for anew, they cost a page fault for every 4 KiB: a fifth of a step
    of a small model. Other C libraries do as they do.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX and M_ARENA_MAX of malloc.h. A thread's own arena holds
        # no block of over 64 MiB.
        for parameter, value in ((-1, 2**31 - 1), (-2, 2**26), (-4, 0), (-8, 1)):
            mallopt(parameter, value)


def _quiet_tensorflow() -> None:
    """Import TensorFlow for a program: what it has to say about itself and the machine stays unsaid."""
    with native_stderr_muted():
        import tensorflow as tf

        tf.config.list_physical_devices()
    tf.get_logger().setLevel("ERROR")


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
