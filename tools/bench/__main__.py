"""How fast batches come, beside the peers that the field uses and what memory allows.

    python tools/bench --data_dir DIR [--rows PART …] [--json FILE] [--picture FILE]

All rows are measured in one run, on one dataset, on all cores, each in a process of its own, in
rounds over all rows, so that what else the machine does meets all alike. A row's windows begin
after a warm-up; the median of all windows counts, the best stands beside it. "Of the limit" is the
ratio to a gather of the same rows into recycled memory, which copies the bytes once and does
nothing else. The peers need `pip install -c constraints.txt -e '.[bench]'`; what is left out is
named. "crops" are of synthetic photographs: as JPEG and PNG files for the peers, which decode them
in every epoch, and as pixels for segdata.
"""

import argparse
import collections
import contextlib
import itertools
import json
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from typing import Any

import goals
import memory
import numpy as np
from jobs import NATIVE, Job
from rows import LIMIT, OURS, ROWS, SIDES, Case, cases, left_out

from segdata.core import records
from segdata.core.system import parallel

BATCHES = {128: 64, 256: 32, 512: 16}
CROPS = 16  # examples a batch
_WINDOWS = 3
_AHEAD = 12  # batches that a row may have made before the first window
_LONGEST = 300  # seconds that a row may take beyond its windows: XLA compiles, workers start


def main() -> None:
    """Measures, prints a table and the goals, writes JSON and a picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", default="dsb2018", help="a built dataset")
    parser.add_argument("--data_dir", help="where it was built")
    parser.add_argument("--megabytes", type=int, default=256, help="of packed records")
    parser.add_argument("--photographs", type=int, default=32, help="that crops are cut from")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window")
    parser.add_argument("--rounds", type=int, default=3, help=f"times {_WINDOWS} windows a row")
    parser.add_argument("--rows", nargs="*", help="only rows whose names hold one of these")
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory of streams")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file")
    parser.add_argument("--picture", type=pathlib.Path, help="write bars to this PNG")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)  # a row's own process
    asked = parser.parse_args()
    if asked.one:
        _measure(**asked.one)
        return
    reasons = left_out()
    for name, reason in reasons.items():
        print(f"left out: {name}: {reason}")
    wanted = [case for case in cases() if case.whose not in reasons]
    if asked.rows is not None:
        parts = [LIMIT, *asked.rows]
        wanted = [case for case in wanted if any(part in case.name for part in parts)]
    with tempfile.TemporaryDirectory() as folder:
        windows, firsts, failed = _rounds(asked, wanted, pathlib.Path(folder))
        anonymous = None if asked.no_memory else memory.ratio(pathlib.Path(folder))
    rates = {name: statistics.median(found) for name, found in windows.items()}
    figures = {
        "machine": f"{platform.processor() or platform.machine()}, {parallel.cores()} cores",
        "dataset": asked.name,
        "images_per_second": rates,
        "best_images_per_second": {name: max(found) for name, found in windows.items()},
        "first_batch_seconds": {name: statistics.median(found) for name, found in firsts.items()},
        "memory_ratio": anonymous,
        "left_out": reasons | failed,
    }
    figures["goals"] = goals.judged(rates, figures["first_batch_seconds"], anonymous)
    _print(figures)
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    if asked.picture:
        import picture

        picture.draw(rates, asked.picture, machine=figures["machine"])
    if failed:
        sys.exit(f"rows failed: {', '.join(failed)}")


def _rounds(
    asked: argparse.Namespace, wanted: list[Case], folder: pathlib.Path
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, str]]:
    """Images a second by row, seconds to the first batch by cache, and why rows failed."""
    packed = _packed(asked, wanted, folder)
    windows: dict[str, list[float]] = collections.defaultdict(list)
    firsts: dict[str, list[float]] = collections.defaultdict(list)
    failed: dict[str, str] = {}
    jobs = {case: _job(asked, case, packed, folder) for case in wanted}
    start = next((job for case, job in jobs.items() if case.whose == OURS), None)
    for turn in range(asked.rounds):
        for case, job in jobs.items():
            if case.name in failed:
                continue
            try:
                _, found = _in_process(job, folder, caches=None)
                windows[case.name] += found
            except RuntimeError as error:
                failed[case.name] = str(error)
                print(f"failed: {case.name}: {error}", file=sys.stderr)
        if start:
            for cache in ("cold", "warm"):  # the second finds what the first has compiled
                compiled = folder / f"compiled-{turn}"
                firsts[cache].append(_in_process(start | {"seconds": 0}, folder, compiled)[0])
    return windows, firsts, failed


def _packed(
    asked: argparse.Namespace, wanted: list[Case], folder: pathlib.Path
) -> dict[int, records.Records]:
    """The records of each side, and of 0 those of crops."""
    packed = {
        side: _repeated(asked, folder / f"{side}.json", side)
        for side in SIDES
        if any(case.side == side and case.kind != "crops" for case in wanted)
    }
    if any(case.kind == "crops" for case in wanted):
        packed[0] = records.write(
            folder / "photographs.json",
            parallel.ordered_map(lambda i: _photograph(i, folder), range(asked.photographs)),
            size=NATIVE,
            source={},
        )
    return packed


def _repeated(asked: argparse.Namespace, path: pathlib.Path, side: int) -> records.Records:
    """The dataset's own records, repeated until no cache of the processor holds them."""
    from segdata import packing

    size = (side, side)
    array = packing.pack(asked.name, "train", size=size, data_dir=asked.data_dir).array()
    count = max(2 * max(BATCHES.values()), asked.megabytes * 10**6 // array[0].size)
    repeated: Iterable[Any] = itertools.islice(itertools.cycle(array), count)
    return records.write(path, repeated, size=size, source={})


def _photograph(index: int, folder: pathlib.Path) -> np.ndarray:
    """Writes a photograph and its mask; both as a record."""
    from PIL import Image

    from segdata.testing import turntable

    rng = np.random.default_rng(index)
    photo, mask = turntable.photograph(turntable.car(rng), index % 16, size=NATIVE, rng=rng)
    Image.fromarray(photo).save(folder / f"{index:04}.jpg", quality=90)
    Image.fromarray(mask).save(folder / f"{index:04}.png")
    return np.dstack([photo, mask])


def _job(
    asked: argparse.Namespace,
    case: Case,
    packed: dict[int, records.Records],
    folder: pathlib.Path,
) -> dict[str, Any]:
    crops = case.kind == "crops"
    return {
        "whose": case.whose,
        "kind": case.kind,
        "batch": CROPS if crops else BATCHES[case.side],
        "manifest": str(packed[0 if crops else case.side].manifest),
        "files": str(folder),
        "dataset": (asked.name, asked.data_dir),
        "seconds": asked.seconds,
    }


def _in_process(
    job: dict[str, Any], folder: pathlib.Path, caches: pathlib.Path | None
) -> tuple[float, list[float]]:
    """Seconds from the start of the process to its first batch, and images a second by window.

    Raises:
        RuntimeError: If it fails; the last line that it wrote.
    """
    result, log = folder / "result.json", folder / "log.txt"
    result.unlink(missing_ok=True)
    command = [sys.executable, str(pathlib.Path(__file__).parent)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if caches:
        environment["NUMBA_CACHE_DIR"] = str(caches)
    with log.open("w") as written:
        begun = time.time()
        process = subprocess.Popen(
            [*command, "--one", json.dumps(job | {"result": str(result)})],
            stdout=written,
            stderr=written,
            env=environment,
            start_new_session=True,  # a loader's workers would live on
        )
        try:
            process.wait(_LONGEST + 10 * job["seconds"])
        except subprocess.TimeoutExpired as error:
            raise RuntimeError("it took too long") from error
        finally:
            with contextlib.suppress(ProcessLookupError):  # all of it has ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if not result.exists():
        lines = log.read_text(errors="replace").strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"it ended with {process.returncode}")
    found = json.loads(result.read_text())
    return found["first"] - begun, found["rates"]


def _measure(
    *,
    whose: str,
    kind: str,
    batch: int,
    manifest: str,
    files: str,
    dataset: tuple[str, str | None],
    seconds: float,
    result: str,
) -> None:
    """Writes the time of the first batch, and images a second in each window."""
    job = Job(
        kind=kind,
        batch=batch,
        packed=records.load(manifest),
        files=pathlib.Path(files),
        dataset=dataset,
    )
    batches = ROWS[whose].make(job)
    next(batches)
    first, rates = time.time(), []
    if seconds:
        for _ in range(_AHEAD):
            next(batches)
    for window in range(1 + _WINDOWS if seconds else 0):
        count, begun = 0, time.perf_counter()
        while (now := time.perf_counter()) - begun < seconds:
            next(batches)
            count += batch
        if window:  # in the one before all, autotuning settles
            rates.append(count / (now - begun))
    pathlib.Path(result).write_text(json.dumps({"first": first, "rates": rates}))
    os._exit(0)  # threads and workers of loaders would be waited for


def _print(figures: dict[str, Any]) -> None:
    rates, best = figures["images_per_second"], figures["best_images_per_second"]
    limit = rates[f"{LIMIT} none"]
    print(f"{figures['dataset']}, {figures['machine']}")
    print(f"\n| images/s | median | best | of the limit |\n|{'-' * 44}|---:|---:|---:|")
    for name, rate in sorted(rates.items(), key=lambda item: -item[1]):
        print(f"| {name:42} | {rate:8,.0f} | {best[name]:8,.0f} | {rate / limit:6.3f} |")
    print(f"\n| goal | value | |\n|{'-' * 48}|---:|---|")
    for goal in figures["goals"]:
        value = "" if goal["value"] is None else f"{goal['value']:.2f}"
        peer = f" ({goal['peer']})" if "peer" in goal else ""
        print(f"| {goal['goal']:46} | {value} | {goal['state']}{peer} |")


if __name__ == "__main__":
    main()
