"""What both command lines share: settings from flags, errors as one line, a quiet start.

A command is a function of its own arguments; the first line of its docstring is its help. Its
settings are a frozen dataclass, whose field docstrings are the help of its flags. Nothing here
knows any command, and TensorFlow is not imported.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import simple_parsing

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")
Command = Callable[[Sequence[str]], int | None]

# What TensorFlow and its CUDA stub print on every start, whatever the machine; measured on 2.21.
_NOISE = re.compile(
    r"cudart_stub|cuda_platform|computation_placer|cuda_executor|cpu_feature_guard|port\.cc"
    r"|Unable to register cu|All log messages before absl|rebuild TensorFlow with"
    r"|oneDNN custom operations are on|TF_ENABLE_ONEDNN_OPTS|service\.cc|device_compiler\.h"
    r"|tf_record_dataset_op\.cc|dump_mlir_util\.cc|`FeatureConnector\.dtype` is deprecated"
)


def run(prog: str, description: str, commands: Mapping[str, Command], argv: Sequence[str]) -> int:
    """Runs one command of a program.

    Args:
        prog: The program's name.
        description: One line that says what it does.
        commands: Name to command.
        argv: The arguments after the program's name.

    Returns:
        The exit code: what the command returned (nothing means 0), 2 for a mistake of the user's
        after one line that names it, 130 if interrupted.
    """
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, commands))
        print(f"usage: {prog} COMMAND [OPTIONS]\n\n{description}\n\ncommands:")
        for name, command in commands.items():
            print(f"  {name:{width}}  {(command.__doc__ or '').splitlines()[0]}")
        print(f"\n`{prog} COMMAND --help` lists a command's options.")
        return 0 if argv else 2
    name, *rest = argv
    if name not in commands:
        return _fail(prog, f"{name!r} is not a command; the commands are {', '.join(commands)}.")
    try:
        return commands[name](rest) or 0
    except (ValueError, OSError) as error:
        if os.environ.get("SEGDATA_TRACEBACK"):
            raise
        return _fail(f"{prog} {name}", str(error))
    except KeyboardInterrupt:
        return 130


def parse(settings: type[Settings], argv: Sequence[str], *, prog: str) -> Settings:
    """Reads a settings dataclass from flags; prints help or the mistake and exits on either."""
    return simple_parsing.parse(
        settings,
        args=list(argv),
        prog=prog,
        add_option_string_dash_variants=simple_parsing.DashVariant.AUTO,
    )


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Holds back what native libraries print while they start; passes on all that is not noise.

    Wrap the first import and the first look for devices in it. Only file descriptor 2 is held,
    so Python's own warnings and tracebacks arrive too, a moment later.
    """
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
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
                    print(line, file=sys.stderr)


def _fail(prog: str, message: str) -> int:
    print(f"{prog}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
