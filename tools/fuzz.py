"""Feeds every parser damaged input, and asks that it be read, or refused in one line.

    python tools/fuzz.py [--cases 1000000] [--seed 0] [--seconds 30] [--keep DIR]
    python tools/fuzz.py --parser archives --seed 0 --case 123

A case depends on its parser, the seed and its number alone. An error is one of ours if a `raise` of
this project made it, as a ValueError or an OSError, and its message is one line that names the
file. Any other is a finding; so is a case that ends its process, takes more than a second of a core
or more than 1 GiB. The exit code is 1 where there are findings, 2 where the arguments are wrong.
"""

import argparse
import collections
import contextlib
import dataclasses
import dis
import importlib
import multiprocessing as mp
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from typing import Any, NamedTuple

import fuzz_cases
import tqdm
from fuzz_cases import PARSERS

import segdata
import unet
from segdata import console

_WORKERS = 2
_BLOCK = 500  # cases that a process is forked for
_SLOW = 1.0  # seconds of a core that a case may take
_HUNG = 30  # seconds after which a case is ended by SIGALRM
_MEMORY = 1 << 30  # bytes of address space, beyond what a process has from the start
_SHOWN = 3  # findings of one kind
_OURS = tuple(os.path.dirname(str(package.__file__)) + os.sep for package in (segdata, unet))
_RAISE = dis.opmap["RAISE_VARARGS"]


class Block(NamedTuple):
    """Some cases of a parser."""

    parser: str
    cases: range


class Finding(NamedTuple):
    """What is wrong with a case; `kind` is the same where the cause is."""

    case: int
    kind: str
    detail: str = ""


@dataclasses.dataclass
class Tally:
    """How some cases ended."""

    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    findings: list[Finding] = dataclasses.field(default_factory=list)

    @property
    def cases(self) -> int:
        """How many they were."""
        return self.read + self.refused + len(self.findings)

    def add(self, other: "Tally") -> None:
        """Counts those of another as well."""
        self.read += other.read
        self.refused += other.refused
        self.seconds += other.seconds
        self.slowest = max(self.slowest, other.slowest)
        self.findings += other.findings


def main() -> int:
    """Feeds one case or many; returns the exit code."""
    parser = argparse.ArgumentParser(description="Feeds every parser damaged input.")
    parser.add_argument("--cases", type=int, default=1_000_000, help="of all parsers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after them")
    parser.add_argument("--parser", choices=[*PARSERS], help="feed this one alone")
    parser.add_argument("--case", type=int, help="feed this case of --parser alone")
    parser.add_argument("--keep", type=pathlib.Path, help="keep the files of findings there")
    asked = parser.parse_args()
    if asked.cases < 1 or (asked.case is not None and not asked.parser):
        parser.error("--cases is 1 or more, and --case needs a --parser.")
    if asked.case is None:
        blocks = _blocks([asked.parser] if asked.parser else [*PARSERS], asked.cases)
    else:
        blocks = [Block(asked.parser, range(asked.case, asked.case + 1))]
    with console.quiet_start():
        for module in {PARSERS[block.parser].imports for block in blocks} - {""}:
            importlib.import_module(module)  # once, and while no case is timed
    ram = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=ram if ram.is_dir() else None) as folder:
        keep = asked.keep and asked.keep.absolute()  # a case has a folder of its own
        options = {"seed": asked.seed, "folder": pathlib.Path(folder), "keep": keep}
        tallies = _run(blocks, seconds=asked.seconds, **options)
    _report(tallies, seed=asked.seed)
    return int(any(tally.findings for tally in tallies.values()))


def feed(parser: str, *, seed: int, case: int) -> Finding | bool:
    """Makes a case in the current folder and has it read.

    Returns:
        Whether it was read rather than refused; or what is wrong with how it was refused.
    """
    try:
        PARSERS[parser].feed(random.Random(f"{parser}/{seed}/{case}"))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        place = error.__traceback__
        while place and place.tb_next:
            place = place.tb_next
        assert place
        code, text = place.tb_frame.f_code, str(error)
        is_raised = code.co_filename.startswith(_OURS) and code.co_code[place.tb_lasti] == _RAISE
        is_clear = fuzz_cases.is_clear(text, names_file=PARSERS[parser].names_file)
        if is_raised and is_clear and isinstance(error, (ValueError, OSError)):
            return False
        where = "/".join(pathlib.Path(code.co_filename).parts[-2:])
        return Finding(case, f"{type(error).__name__} at {where}:{place.tb_lineno}", text[:160])
    return True


def _blocks(parsers: Sequence[str], cases: int) -> list[Block]:
    """Shares cases out among parsers, in blocks that take turns."""
    shares = sum(PARSERS[name].share for name in parsers)
    found = []
    for name in parsers:
        count = -(-cases * PARSERS[name].share // shares)
        for start in range(0, count, _BLOCK):
            block = Block(name, range(start, min(start + _BLOCK, count)))
            found.append((start / count, block))
    return [block for _, block in sorted(found, key=lambda pair: pair[0])]


def _run(blocks: Sequence[Block], *, seconds: float, **options: Any) -> Mapping[str, Tally]:
    """Feeds blocks, each in a process of its own, a few at a time."""
    tallies = {block.parser: Tally() for block in blocks}
    left, end = collections.deque(blocks), time.monotonic() + seconds
    running = {}
    with tqdm.tqdm(total=sum(len(b.cases) for b in blocks), unit=" cases", disable=None) as bar:
        while running or (left and time.monotonic() < end):
            while left and len(running) < _WORKERS and time.monotonic() < end:
                block, at = left.popleft(), mp.RawValue("q")
                receiver, process = _started(block, at, options)
                running[receiver] = (process, block, at)
            ready = wait([*running])
            for receiver in [one for one in running if one in ready]:
                process, block, at = running.pop(receiver)
                try:
                    tally = receiver.recv()
                    if isinstance(tally, Exception):
                        raise tally
                    process.join()
                except EOFError:  # it has ended in the middle of a case
                    process.join()
                    ended = Finding(at.value, f"process ended with {process.exitcode}")
                    tally = Tally(findings=[ended])
                    first, last = block.cases.start, block.cases.stop
                    others = (range(at.value + 1, last), range(first, at.value))
                    left.extendleft(Block(block.parser, cases) for cases in others if cases)
                tallies[block.parser].add(tally)
                bar.update(tally.cases)
    return tallies


def _started(block: Block, at: Any, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """A process that feeds a block, and the connection on which it sends its tally."""
    receiver, sender = mp.Pipe(duplex=False)
    process = mp.get_context("fork").Process(
        target=_work, args=(block, at, sender), kwargs=options, daemon=True
    )
    process.start()
    sender.close()  # so that its end is seen
    return receiver, process


def _work(
    block: Block,
    at: Any,
    sender: Any,
    *,
    seed: int,
    folder: pathlib.Path,
    keep: pathlib.Path | None,
) -> None:
    """Limits this process, feeds a block, and sends the tally or what stopped it."""
    place = pathlib.Path(tempfile.mkdtemp(dir=folder), "case")
    os.environ.update(HOME=f"{place}/home", XDG_CACHE_HOME=f"{place}/cache")
    has = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + _MEMORY, resource.RLIM_INFINITY))
    warnings.simplefilter("ignore")
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)  # what parsers say on the way
    try:
        sender.send(_fed(block, at, seed=seed, place=place, keep=keep))
    except Exception as error:  # of this tool, or a full disk
        sender.send(error)


def _timed(
    parser: str, place: pathlib.Path, *, seed: int, case: int
) -> tuple[bool | Finding, float]:
    """`feed` in an empty folder, and the seconds of a core that it takes."""
    place.mkdir()
    os.chdir(place)
    signal.alarm(_HUNG)
    begun = time.process_time()
    outcome = feed(parser, seed=seed, case=case)
    return outcome, time.process_time() - begun


def _fed(
    block: Block, at: Any, *, seed: int, place: pathlib.Path, keep: pathlib.Path | None
) -> Tally:
    """Feeds a block, each case in an empty folder; `at` holds the number of the current one."""
    tally, was_slow = Tally(), False
    for case in block.cases:
        at.value = case
        outcome, spent = _timed(block.parser, place, seed=seed, case=case)
        if spent > _SLOW and not was_slow:  # once more: loops may have been compiled
            was_slow = True
            shutil.rmtree(place)
            outcome, spent = _timed(block.parser, place, seed=seed, case=case)
        if spent > _SLOW:
            outcome = Finding(case, f"over {_SLOW} s", f"{spent:.1f} s")
        tally.seconds += spent
        tally.slowest = max(tally.slowest, spent)
        if isinstance(outcome, Finding):
            tally.findings.append(outcome)
            if keep:
                with contextlib.suppress(shutil.Error, FileExistsError):  # pipes; kept before
                    shutil.copytree(place, keep / f"{block.parser}-{seed}-{case}", symlinks=True)
        else:
            tally.read += outcome
            tally.refused += not outcome
        shutil.rmtree(place)
    return tally


def _report(tallies: Mapping[str, Tally], *, seed: int) -> None:
    """Prints the findings by kind, a table of parsers, and totals."""
    for name, tally in tallies.items():
        kinds = collections.defaultdict[str, list[Finding]](list)
        for finding in sorted(tally.findings):
            kinds[finding.kind].append(finding)
        for kind, findings in kinds.items():
            print(f"{name}, {len(findings):,} of {kind}:")
            for case, _, detail in findings[:_SHOWN]:
                print(f"  --parser {name} --seed {seed} --case {case}  {detail!r}")
    print("| parser | cases | read | refused | findings | ms a case | slowest, ms |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    for name, tally in {**tallies, "all": total}.items():
        print(
            f"| {name} | {tally.cases:,} | {tally.read:,} | {tally.refused:,} "
            f"| {len(tally.findings):,} | {1000 * tally.seconds / max(tally.cases, 1):.2f} "
            f"| {1000 * tally.slowest:.0f} |"
        )


if __name__ == "__main__":
    sys.exit(main())
