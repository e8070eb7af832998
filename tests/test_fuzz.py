"""The fuzz tool, on the parsers for a minute and on planted faults."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

TOOLS = pathlib.Path(__file__).parents[1] / "tools"
PLANTED = """
import os, sys, time
import fuzz, fuzz_cases
from segdata.archives import rle

def some(fault):
    return fuzz_cases.Parser(lambda rng: rng.randrange(8) or fault(), 1, names_file=False)

calls = []

def slow():
    calls.append(time.process_time())
    while len(calls) < 3 and time.process_time() - calls[-1] < 1.2: pass

fuzz_cases.PARSERS.clear()
fuzz_cases.PARSERS.update(
    sound=some(lambda: rle.decode("1 2", shape=(2, 1), order="rows")),
    refused=some(lambda: rle.decode("1", shape=(2, 1), order="rows")),
    type=some(lambda: len(3)),
    deep=some(lambda: int("x")),
    unnamed=fuzz_cases.Parser(lambda rng: rle.decode("1", shape=(2, 1), order="rows"), 1),
    killed=some(lambda: os.kill(os.getpid(), 9)),
    large=some(lambda: bytearray(2 << 30)),
    slow=fuzz_cases.Parser(lambda rng: slow(), 1, names_file=False),
)
sys.exit(fuzz.main())
"""
FAULTS = {
    "type": "TypeError",
    "deep": "ValueError",
    "unnamed": "ValueError",
    "killed": "process ended with -9",
    "large": "MemoryError",
    "slow": "over 1.0 s",
}


def fuzz(*arguments: str, planted: bool = False) -> subprocess.CompletedProcess[str]:
    program = ["-c", PLANTED] if planted else [TOOLS / "fuzz.py"]
    return subprocess.run(
        [sys.executable, *program, *arguments], capture_output=True, text=True, cwd=TOOLS
    )


def table(output: str) -> dict[str, list[int]]:
    """How many cases of each parser there were, were read, were refused, and had findings."""
    rows = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("| ")]
    return {name: [int(n.replace(",", "")) for n in numbers[:4]] for name, *numbers in rows[1:]}


@pytest.mark.heavy
def test_whatever_is_damaged_is_read_or_refused_by_name():
    done = fuzz("--cases", "5400", "--seed", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = table(done.stdout)
    assert len(rows) >= 10
    for name, (cases, read, refused, findings) in rows.items():
        assert cases == read + refused >= 100, name
        assert read > 0, name
        assert findings == 0, name
    assert any(refused for _, _, refused, _ in rows.values())


@pytest.fixture(scope="module")
def planted() -> str:
    """What is printed of 30 cases of each planted fault."""
    done = fuzz("--cases", "240", planted=True)
    assert done.returncode == 1, done.stderr
    return done.stdout


def test_every_fault_is_found_and_no_sound_refusal(planted):
    for name, (cases, read, refused, findings) in table(planted).items():
        assert cases == read + refused + findings == (240 if name == "all" else 30)
        assert bool(findings) == (name in FAULTS or name == "all"), name
        assert bool(refused) == (name in ("refused", "all")), name
    for name, kind in FAULTS.items():
        assert f" of {kind}" in planted.partition(f"{name}, ")[2].partition("\n")[0]


def test_a_finding_is_found_again_alone_and_only_with_its_seed(planted, tmp_path):
    number = planted.partition("--parser type --seed 0 --case ")[2].split()[0]
    alone = ("--parser", "type", "--case", number, "--keep", os.path.relpath(tmp_path, TOOLS))
    again = fuzz(*alone, planted=True)
    assert again.returncode == 1
    assert table(again.stdout)["type"] == [1, 0, 0, 1]
    assert [path.name for path in tmp_path.iterdir()] == [f"type-0-{number}"]
    assert fuzz(*alone, "--seed", "1", planted=True).returncode == 0


@pytest.mark.parametrize("wrong", [["--cases", "0"], ["--case", "3"], ["--parser", "x"]])
def test_wrong_arguments_are_refused(wrong, monkeypatch, capsys):
    monkeypatch.syspath_prepend(TOOLS)
    monkeypatch.setattr(sys, "argv", ["fuzz.py", *wrong])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("fuzz").main()
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err
