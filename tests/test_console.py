import dataclasses
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import tomllib

import pytest

from segdata import console

PROGRAM = """
import os, signal, sys, time
from segdata import console
from segdata.core.system import files

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores

def many(argv):
    '''Prints more than a pipe holds.'''
    for number in range(100_000):
        print(number)

def odd(argv):
    '''Prints what is not ASCII.'''
    console.log("256×256 \\udcff")

def write(argv):
    '''Writes a file, and libraries print meanwhile.'''
    with open(argv[0], "w") as file:
        os.write(2, b"noise")
        with console.quiet_start():
            os.write(2, b"more noise")
        print("progress", file=sys.stderr)
        file.write("content")

def where(argv):
    '''Asks for the current folder when it is gone.'''
    os.chdir(argv[0])
    os.rmdir(argv[0])
    os.getcwd()

def ended(argv):
    '''Gets a signal while it writes a file.'''
    with files.replacing(argv[0]):
        os.kill(os.getpid(), getattr(signal, argv[1]))
        time.sleep(60)

def loading(argv):
    '''Gets a signal while libraries are loaded.'''
    with console.quiet_start():
        try:
            os.kill(os.getpid(), getattr(signal, argv[0]))
            time.sleep(60)
        except BaseException:
            os.abort()  # as TensorFlow does

def dropped(argv):
    '''Gets a signal where none can be raised.'''
    class Own:
        def __del__(self):
            os.kill(os.getpid(), getattr(signal, argv[1]))
    with files.replacing(argv[0]):
        Own()
        time.sleep(60)

commands = {
    command.__name__: command for command in (many, odd, write, where, ended, loading, dropped)
}
sys.exit(console.run("prog", "", commands, sys.argv[1:]))
"""


def run(arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs the program by a shell."""
    command = f'"{sys.executable}" -c "$PROGRAM" {arguments}'
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env={**os.environ, "PROGRAM": PROGRAM, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b/é猫×–…", "a b/é猫×–…"),
        ("\x1b[2J\x07\r\n\t\x00", r"\x1b[2J\x07\r\n\t\x00"),
        ("\x9b31m \u202egnp \u2066 \u2028", r"\x9b31m \u202egnp \u2066 \u2028"),
        (os.fsdecode(b"\xff\xfe"), r"\udcff\udcfe"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text, expected):
    assert console.printable(text) == expected


def test_any_text_becomes_one_line_that_can_be_shown_and_encoded():
    chance = random.Random(0)
    for _ in range(200):
        text = "".join(chr(chance.randrange(0x3000)) for _ in range(20))
        text += chr(chance.randrange(sys.maxunicode + 1))
        found = console.printable(text)
        assert found.isprintable()
        assert found.encode()
        assert console.printable(found) == found


def test_an_error_is_one_line_whatever_it_says(capsys):
    def command(argv):
        raise ValueError("two\nlines \x1b[31m\udcff")

    assert console.run("prog", "", {"do": command}, ["do"]) == 2
    assert capsys.readouterr().err == "prog do: error: two lines \\x1b[31m\\udcff\n"


def test_a_tilde_is_the_home_folder_wherever_it_stands(no_credentials, capsys):
    def command(argv):
        print(json.dumps(argv))

    given = ["~/a", "--to=~/b", "--to", "~", "--to=a~/b", "a/~", "--x=y=~", "-", "--to=", "~"]
    console.run("prog", "", {"do": command}, ["do", *given])
    home = str(no_credentials)
    expected = [f"{home}/a", f"--to={home}/b", "--to", home, *given[4:9], home]
    assert json.loads(capsys.readouterr().out) == expected


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """Asks for files."""

    inputs: list[str] = dataclasses.field(
        metadata={"positional": True, "custom_args": {"metavar": "INPUT", "nargs": "+"}}
    )

    to: str
    """The folder, of which 5 % or 100% is free."""

    share: float = 0.75
    """0.75 % of the diagonal, 50 %d of it."""

    learning_rate: float = 0.1
    flips: bool = True
    """Average over mirror images."""

    border: str = "mirror"
    filters: int = 2
    batch: int = 2


def test_help_shows_per_cent_signs_the_number_of_words_and_no_default_of_what_is_required(capsys):
    with pytest.raises(SystemExit):
        console.parse(Asked, ["--help"], prog="prog")
    shown = " ".join(capsys.readouterr().out.split())
    assert "INPUT [INPUT ...]" in shown
    assert "The folder, of which 5 % or 100% is free. --share" in shown
    assert "0.75 % of the diagonal, 50 %d of it. (default: 0.75)" in shown
    assert shown.count("Asks for files.") == 1
    assert "--flips bool Average over mirror images. (default: True)" in shown


def test_a_switch_is_turned_off_by_any_usual_word_and_in_no_other_way(capsys):
    words = {"true": True, "on": True, "1": True, "false": False, "off": False, "no": False}
    for word, expected in words.items():
        for typed in (["--flips", word], [f"--flips={word}"]):
            found = console.parse(Asked, [*typed, "--to", "x", "a"], prog="prog")
            assert (found.flips, found.inputs) == (expected, ["a"])
    assert console.parse(Asked, ["--flips", "--to", "x", "a"], prog="prog").flips
    with pytest.raises(SystemExit):
        console.parse(Asked, ["--flips=maybe", "--to", "x", "a"], prog="prog")
    assert "Boolean value expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("--batch_size", "; did you mean --batch?"),
        ("--learning", "; did you mean --learning_rate?"),
        ("--filter", "; did you mean --filters?"),
        ("--lr", ""),
        ("--encoder", ""),
        ("--workers", ""),
    ],
)
def test_an_unknown_flag_is_compared_with_what_it_may_have_meant(typed, near, capsys):
    with pytest.raises(SystemExit):
        console.parse(Asked, [typed, "1"], prog="prog")
    end = "" if near else "."
    expected = f"prog: error: there is no {typed}{near}{end} `prog --help` lists the flags.\n"
    assert capsys.readouterr().err == expected


def test_a_reader_that_goes_ends_a_command_without_a_word():
    done = run("many | head -n 1")
    assert (done.returncode, done.stdout, done.stderr) == (141, "0\n", "")


def test_a_reader_that_is_gone_before_anything_was_printed_is_no_complaint_either():
    done = run("--help | true")
    assert done.returncode in (0, 141)
    assert done.stderr == ""


def test_output_that_finds_no_room_is_one_line():
    done = run("odd > /dev/full", PYTHONUNBUFFERED="")
    assert done.returncode == 2
    said = "the output cannot be written: No space left on device."
    assert done.stderr == f"prog odd: error: {said}\n"


def test_a_current_folder_that_is_gone_is_named(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    done = run(f"where {gone}")
    assert done.returncode == 2
    assert done.stderr == "prog where: error: the current folder is gone; change to another.\n"


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_a_command_and_leaves_no_unfinished_file(tmp_path, name, code):
    done = run(f"ended {tmp_path}/file {name}")
    assert (done.returncode, done.stderr) == (code, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_libraries_are_loaded_aborts_nothing(number):
    done = run(f"loading {number.name}")
    assert (done.returncode, done.stderr) == (-number, "")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_that_comes_where_nothing_can_be_raised_is_not_lost(tmp_path, name, code):
    done = run(f"dropped {tmp_path}/file {name}")
    assert (done.returncode, "Exception ignored" in done.stderr) == (code, False)
    assert not list(tmp_path.iterdir())


def test_commands_in_threads_leave_hooks_and_signals_as_they_were():
    """They may end in another order than they began."""
    before = sys.unraisablehook, signal.getsignal(signal.SIGTERM)
    began, ended = threading.Barrier(2, timeout=10), threading.Event()

    def first(argv):
        began.wait()

    def last(argv):
        began.wait()
        ended.wait(10)

    threads = [
        threading.Thread(target=console.run, args=("prog", "", {"go": command}, ["go"]))
        for command in (first, last)
    ]
    for thread in threads:
        thread.start()
    threads[0].join()
    ended.set()
    threads[1].join()
    assert (sys.unraisablehook, signal.getsignal(signal.SIGTERM)) == before


def test_closed_streams_take_nothing_from_files(tmp_path):
    for closed in ("2>&-", "<&- >&- 2>&-"):
        path = tmp_path / "file"
        assert run(f"write {path} {closed}").returncode == 0
        assert path.read_text() == "content"


def test_a_terminal_of_few_letters_gets_escapes():
    done = run("odd", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, "256\\xd7256 \\udcff\n", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "--imports .: TypeError: "),
        ("..", "--imports ..: TypeError: "),
        ("no.such", "--imports no.such: No module named 'no'."),
        ("unreadable", "--imports unreadable: SyntaxError: "),
        ("leaves", "--imports leaves: SystemExit: 3."),
    ],
)
def test_modules_that_cannot_be_imported_are_a_mistake(monkeypatch, tmp_path, name, message):
    (tmp_path / "unreadable.py").write_text("def (")
    (tmp_path / "leaves.py").write_text("import sys; sys.exit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        console.import_modules(name)


INTERRUPTED = """
import importlib, sys

class Interrupt:
    def find_spec(name, *_):
        if name == "numpy":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt)
module, function = sys.argv[1].split(":")
sys.exit(getattr(importlib.import_module(module), function)())
"""


@pytest.mark.parametrize("command", ["segdata", "unet"])
def test_an_interrupt_ends_a_command_without_a_word_while_it_is_imported(command):
    project = pathlib.Path(__file__).parent.parent / "pyproject.toml"
    entry = tomllib.loads(project.read_text())["project"]["scripts"][command]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, entry], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")


@dataclasses.dataclass
class Values:
    """Flags that take several values."""

    labels: list[str] = dataclasses.field(default_factory=list)
    span: tuple[float, float] = (0.0, 1.0)
    count: int = 0
    to: pathlib.Path | None = None
    like: str = "all"


@pytest.mark.parametrize("argv", [["--to", ""], ["--to="], [""], ["--labels", "a", ""]])
def test_an_empty_path_is_not_taken_for_the_current_folder(argv, capsys):
    with pytest.raises(SystemExit) as exit_:
        console.parse(Values, argv, prog="x")
    assert exit_.value.code == 2
    assert "is empty" in capsys.readouterr().err


def test_a_text_may_be_empty_and_a_path_may_be_called_none():
    found = console.parse(Values, ["--like", "", "--to", "none"], prog="x")
    assert (found.like, found.to) == ("", pathlib.Path("none"))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("--labels -1=a 2=b --count 3", (["-1=a", "2=b"], (0.0, 1.0), 3)),
        ("--labels -1", (["-1"], (0.0, 1.0), 0)),
        ("--span -1e-3 -.5e-4 --count -2", ([], (-1e-3, -0.5e-4), -2)),
    ],
)
def test_what_begins_like_a_negative_number_is_a_value(argv, expected):
    found = console.parse(Values, argv.split(), prog="x")
    assert (found.labels, found.span, found.count) == expected


def test_other_words_with_a_dash_are_still_no_values(capsys):
    with pytest.raises(SystemExit):
        console.parse(Values, ["--labels", "-x=a"], prog="x")
    assert "-x=a" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("the file is gone:\npack again."), "the file is gone: pack again."),
        (OSError(5, "no disk", "a.png"), "OSError: [Errno 5] no disk: 'a.png'"),
        (MemoryError("no room"), "MemoryError: no room"),
        (None, "Matrix size-incompatible: In[0]: [2,3], In[1]: [2,3]"),
    ],
)
@pytest.mark.parametrize("in_graph", [False, True])
def test_an_error_in_the_input_or_a_graph_is_its_cause_in_a_line(capsys, error, said, in_graph):
    import tensorflow as tf

    def broken(number):
        if error:
            raise error
        return number

    def use(argv):
        """Computes from each number."""
        data = tf.data.Dataset.range(3).map(lambda x: tf.numpy_function(broken, [x], tf.int64))

        def each():
            total = tf.constant(0.0)
            for number in data:
                pair = tf.ones(tf.cast([2, 3 + 0 * number], tf.int32))
                total += tf.reduce_sum(tf.matmul(pair, pair))
            return total

        print((tf.function(each) if in_graph else each)())

    assert console.run("prog", "", {"use": use}, ["use"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"prog use: error: {said}")
    assert printed.count("\n") == 1
    assert len(printed) < len(said) + 120
