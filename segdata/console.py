"""Shared by both command lines: settings from flags, errors as one line, safe output.

A command is a function of its own arguments; the first line of its docstring is its help. Its
settings are a frozen dataclass, whose field docstrings are the help of its flags. No command is
known here, and TensorFlow is not imported.
"""

import argparse
import contextlib
import dataclasses
import difflib
import importlib
import io
import itertools
import logging
import os
import pathlib
import re
import signal
import sys
import tempfile
import threading
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

import simple_parsing

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")
Command = Callable[[Sequence[str]], int | None]

# Lines that TensorFlow 2.21, its CUDA stub, LiteRT and its converter print on every start.
_NOISE = re.compile(
    r"cudart_stub|cuda_platform|computation_placer|cuda_executor|cpu_feature_guard|port\.cc"
    r"|Unable to register cu|All log messages before absl|rebuild TensorFlow with"
    r"|oneDNN custom operations are on|TF_ENABLE_ONEDNN_OPTS|service\.cc|device_compiler\.h"
    r"|tf_record_dataset_op\.cc|dump_mlir_util\.cc|tf_tfl_flatbuffer_helpers\.cc"
    r"|Created TensorFlow Lite XNNPACK delegate|`FeatureConnector\.dtype` is deprecated"
)

_SWITCHES = {"on": "true", "off": "false"}  # which simple_parsing does not know
_BOOLEANS = ("true", "false", "True", "False", "1", "0", "yes", "no", *_SWITCHES)
_SIGPIPE = 13
_ENDING = (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
_TENSORFLOW_ERRORS = "tensorflow.python.framework.errors_impl"
# A graph's error begins with lines about its place; one of the input has a traceback of Python's.
_PLACE = re.compile(r"Graph execution error:|Detected at node|<stack traces unavailable>|\s|$")
_OF_INPUT = re.compile(
    r"with iterator: \S+: (?:ValueError: )?(\S.*?)\s*^Traceback \(most", re.MULTILINE | re.DOTALL
)


def run(prog: str, description: str, commands: Mapping[str, Command], argv: Sequence[str]) -> int:
    """Runs one command of a program.

    In its arguments `~` is the home folder, also after a flag's `=`, where shells do not expand it.

    Args:
        prog: The program's name.
        description: One line that says what it does.
        commands: Name to command.
        argv: The arguments after the program's name.

    Returns:
        The exit code: the command's result (None means 0), 2 for an error of the user's after one
        line that names it, 130 if interrupted, 141 if the output was closed, as with `| head`.

    Raises:
        SystemExit: On SIGTERM and SIGHUP, with 143 and 129.
    """
    _prepare_streams()
    try:
        with _signals():
            return _run(prog, description, commands, [_expanded(argument) for argument in argv])
    except BrokenPipeError:
        return 128 + _SIGPIPE  # as a shell reports a program that the signal ended
    finally:
        _forget_unwritten()


class _Flag(NamedTuple):
    """What is known of a flag besides what the parser knows."""

    field: str

    is_switch: bool
    """Whether it is true or false."""

    may_be_none: bool
    """Whether the word none takes back what a default sets; of texts none is one."""

    may_be_empty: bool
    """Whether it takes any number of values, of which the word none means 0."""

    is_path: bool
    """Whether it names a file or a folder."""


class _Help(simple_parsing.SimpleHelpFormatter):
    """Help in the words of docstrings: a % is a %, and a heading is the name of a dataclass."""

    def start_section(self, heading: str | None) -> None:
        # simple_parsing's is the whole name, and where values are stored: f.<locals>.A ['settings']
        super().start_section(heading and heading.split(" ['")[0].rpartition(".")[2].lstrip("_"))

    def _get_help_string(self, action: argparse.Action) -> str:
        text = (action.help if action.required else super()._get_help_string(action)) or ""
        return re.sub(r"%(?!\(default\)s)", "%%", text)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # a switch is turned off by --name=false; the parser takes no --noname
        return re.sub(r", --no\w+ bool", "", super()._format_action_invocation(action))

    def _format_args(self, action: argparse.Action, default_metavar: Any) -> Any:
        if not action.option_strings:  # simple_parsing leaves out how many there are
            return argparse.HelpFormatter._format_args(self, action, default_metavar)
        return super()._format_args(action, default_metavar)


class Parser(simple_parsing.ArgumentParser):
    """Reads dataclasses from flags, by their whole names; a mistake is one line that names it."""

    def __init__(self, **options: Any):
        super().__init__(
            allow_abbrev=False,
            add_option_string_dash_variants=simple_parsing.DashVariant.AUTO,
            formatter_class=_Help,
            **options,
        )
        logging.getLogger("simple_parsing").setLevel(logging.CRITICAL)  # an error says it again
        self._negative_number_matcher = re.compile(r"-\.?\d")  # -1=pet and -1e-3 are no flags
        self._flags: dict[str, _Flag] = {}
        self._cleared = set[str]()

    def add_arguments(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, kind: Any, dest: str, **options: Any
    ) -> Any:
        """Adds a flag for each field of a dataclass."""
        self._flags |= _flags(kind)
        return super().add_arguments(kind, dest, **options)

    def read(self, argv: Sequence[str]) -> Any:
        """The dataclasses by the names that they were added under; prints help, or exits with 2."""
        found = self.parse_args(list(self._checked(argv)))
        for name, value in vars(found).items():
            setattr(found, name, _without(value, self._cleared))
        return found

    def error(self, message: str) -> NoReturn:
        """Prints one line, and exits with 2."""
        stop = "" if message.endswith((".", "?")) else "."
        raise SystemExit(fail(self.prog, f"{message}{stop} `{self.prog} --help` lists the flags."))

    def _checked(self, argv: Sequence[str]) -> Iterator[str]:
        """The same arguments, of which no flag is unknown, nor takes the next word by mistake.

        Those that take a value back are left out. No path is empty, as of a shell's variable that
        is not set: it would be the current folder.
        """
        words = iter(itertools.zip_longest(argv, argv[1:], fillvalue="--"))
        empty: dict[str, str] = {}
        for argument, following in words:
            given, equals, value = argument.partition("=")
            name = given[:2] + given[2:].replace("-", "_")
            if given[:2] != "--" or name == "--help":
                if not argument:
                    self.error("an argument is empty")
                yield argument
                continue
            if name not in self._flags:
                names = [known.removeprefix("--") for known in self._flags]
                near = difflib.get_close_matches(name[2:], names, n=1, cutoff=0.65)
                self.error(f"there is no {name}" + (f"; did you mean --{near[0]}?" if near else ""))
            flag = self._flags[name]
            value = value if equals else following
            if flag.is_path and not value:
                self.error(f"{name}: its value is empty; name a file or a folder")
            if value == "none" and (flag.may_be_none or flag.may_be_empty):
                if flag.may_be_none:
                    self._cleared.add(flag.field)
                else:
                    empty[flag.field] = given
                if not equals:
                    next(words)
                continue
            self._cleared.discard(flag.field)  # given again
            empty.pop(flag.field, None)
            if flag.is_switch:  # its value may follow, and else is true
                if not equals:
                    value = next(words)[0] if following in _BOOLEANS else "true"
                yield f"{given}={_SWITCHES.get(value, value)}"
            elif not equals and following.startswith("--"):
                self.error(f"{name}: its value is missing")
            else:
                yield argument
                if not value and not equals:
                    yield next(words)[0]
        yield from empty.values()


def parse(settings: type[Settings], argv: Sequence[str], *, prog: str) -> Settings:
    """Reads a settings dataclass from flags; prints help or an error and exits on either."""
    parser = Parser(prog=prog)  # the docstring stands above the dataclass's flags
    parser.add_arguments(settings, dest="settings")
    return parser.read(argv).settings


def given(argv: Sequence[str]) -> set[str]:
    """The names of the flags that a command line has, in which there are no unknown ones."""
    flags = (argument.partition("=")[0] for argument in argv if argument.startswith("--"))
    return {flag.removeprefix("--").replace("-", "_") for flag in flags}


def _flags(kind: Any) -> dict[str, _Flag]:
    """The flags of a dataclass by their names."""
    found: dict[str, _Flag] = {}
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            found |= _flags(hint)
        elif not field.metadata.get("positional"):
            names = [f"--{field.name}", *field.metadata.get("alias", [])]
            kinds = {hint, *typing.get_args(hint)}
            is_path = pathlib.Path in kinds
            may_be_none = type(None) in kinds and not is_path and str not in kinds
            may_be_empty = ... in kinds
            flag = _Flag(field.name, hint is bool, may_be_none, may_be_empty, is_path)
            found |= dict.fromkeys(names, flag)
    return found


def _without(settings: Any, names: Collection[str]) -> Any:
    """Settings with None in some fields, also of dataclasses in them."""
    if not names or not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        return settings
    inner = {
        f.name: _without(getattr(settings, f.name), names) for f in dataclasses.fields(settings)
    }
    return dataclasses.replace(settings, **inner | dict.fromkeys(inner.keys() & names))


def import_modules(names: str) -> None:
    """Imports the modules of a flag `--imports`, separated by commas, which register datasets.

    Raises:
        ValueError: If one cannot be imported.
    """
    for name in filter(None, map(str.strip, names.split(","))):
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # whatever a module does
            kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
            raise ValueError(f"--imports {name}: {kind}{error}.") from error


def printable(text: str) -> str:
    """Escapes a text for a terminal: on one line, and without invisible characters.

    Line ends, control characters, changes of direction and bytes of a name that are not UTF-8 are
    escaped; names in archives and messages of servers may hold any of these.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def counted(count: int, what: str) -> str:
    """Such as "1 image", "2 images"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def log(text: str) -> None:
    """Prints a line."""
    print(printable(text))


def fail(prog: str, message: str) -> int:
    """Prints an error as one line; returns the exit code of a mistake, 2."""
    with contextlib.suppress(OSError):  # closed
        print(f"{prog}: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return 2


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Drops the lines that native libraries print on every start; passes on all others.

    Wrap the first import and the first detection of devices in it. File descriptor 2 is held back,
    so Python's own warnings and tracebacks arrive too, a moment later. A signal ends the process at
    once: an exception within a native library that is being loaded makes that abort.
    """
    sys.stderr.flush()
    real = os.dup(2)
    at_once = dict.fromkeys((signal.SIGINT, *_ENDING), signal.SIG_DFL)
    with _handled(at_once), tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines():
                if line.strip() and not _NOISE.search(line):
                    print(printable(line), file=sys.stderr)


def _run(prog: str, description: str, commands: Mapping[str, Command], argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, commands))
        print(f"usage: {prog} COMMAND [OPTIONS]\n\n{description}\n\ncommands:")
        for name, command in commands.items():
            print(f"  {name:{width}}  {(command.__doc__ or '').splitlines()[0]}")
        print(f"\n`{prog} COMMAND --help` lists a command's options.")
        return 0 if argv else 2
    name, *rest = argv
    if name not in commands:
        return fail(prog, f"{name!r} is not a command; the commands are {', '.join(commands)}.")
    try:
        code = commands[name](rest) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        if os.environ.get("SEGDATA_TRACEBACK"):
            raise
        return fail(f"{prog} {name}", _reason(error))
    except ModuleNotFoundError as error:
        if os.environ.get("SEGDATA_TRACEBACK"):
            raise
        return fail(f"{prog} {name}", f"the Python package {error.name} is not installed.")
    except MemoryError as error:
        return fail(f"{prog} {name}", f"there is too little memory: {error}")
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # Too little memory, a removed file: by its name, as TensorFlow is not imported here.
        if os.environ.get("SEGDATA_TRACEBACK") or type(error).__module__ != _TENSORFLOW_ERRORS:
            raise
        return fail(f"{prog} {name}", _cause(str(error)))


def _reason(error: Exception) -> str:
    """What an error says; the system names neither the output nor the current folder."""
    if not isinstance(error, OSError) or error.errno is None or error.filename is not None:
        return str(error)
    try:
        sys.stdout.flush()  # what was not written is tried again
    except OSError:
        return f"the output cannot be written: {error.strerror}."
    try:
        os.getcwd()
    except OSError:
        return "the current folder is gone; change to another."
    return str(error)


def _cause(message: str) -> str:
    """What TensorFlow says went wrong, without where in a graph; of the input what Python said."""
    if found := _OF_INPUT.search(message):
        return found[1]
    lines = message.splitlines()
    line = next((line for line in lines if not _PLACE.match(line)), message)
    return re.sub(r"^\{\{.*?\}\} ", "", line)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as an interrupt does, which leaves no unfinished file.

    The second ends it at once. What is ignored, as with `nohup`, stays so. An exception of a signal
    that came where none can be raised, as in JAX's callback of the garbage collector, is not lost.
    """
    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return
    hook = sys.unraisablehook

    def dropped(what: Any) -> None:
        if issubclass(what.exc_type, KeyboardInterrupt | SystemExit):
            number = signal.SIGINT
            if issubclass(what.exc_type, SystemExit):
                number = signal.SIGTERM
                signal.signal(number, _end)  # this is still the first
            threading.Timer(0.02, signal.raise_signal, [number]).start()  # here it is dropped too
        else:
            hook(what)

    try:
        sys.unraisablehook = dropped
        with _handled(dict.fromkeys(_ENDING, _end)):
            yield
    finally:
        sys.unraisablehook = hook


@contextlib.contextmanager
def _handled(how: Mapping[signal.Signals, Any]) -> Iterator[None]:
    """Sets what signals do, but those that are ignored."""
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():  # others get no signals
        before = {number: signal.getsignal(number) for number in how}
    changed = [number for number in before if before[number] not in (signal.SIG_IGN, None)]
    try:
        for number in changed:
            signal.signal(number, how[number])
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])


def _end(number: int, frame: Any) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)


def _expanded(argument: str) -> str:
    flag, equals, value = argument.partition("=") if argument[:1] == "-" else ("", "", argument)
    return flag + equals + os.path.expanduser(value)


def _prepare_streams() -> None:
    """Makes every text printable, whatever the terminal's encoding, and replaces closed streams."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as `2>&-` does
            # The next file to be opened would become it, and get what libraries print.
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _forget_unwritten() -> None:
    """Drops output that cannot be written: Python would try again at exit, and print an error."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
