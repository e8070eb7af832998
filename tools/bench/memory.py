"""What a stream takes and how soon it begins, over few and over many packed records.

For each count a process of its own packs random records and reads 200 training batches and a
validation pass from them: the memory that is its own (anonymous: what the kernel cannot drop and
read again), the time to the first batch, compiling included, and to the first of the pass.

    python tools/bench/memory.py
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

SIZE, BATCH, BATCHES = (128, 128), 64, 200


def main() -> None:
    """Prints a table, and by how much the last row differs from the first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 40_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--of", type=pathlib.Path, help=argparse.SUPPRESS)  # the process of one
    asked = parser.parse_args()
    if asked.of:
        print(json.dumps(_measure(asked.of, asked.counts[0])))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = [_median(pathlib.Path(folder), count, asked.rounds) for count in asked.counts]
    print("| records | MB | anonymous MiB | first batch, s | first of validation, s |")
    print("|---:|---:|---:|---:|---:|")
    for count, row in zip(asked.counts, found, strict=True):
        print(
            f"| {count:,} | {row['megabytes']:,.0f} | {row['anonymous']:.0f} "
            f"| {row['first']:.2f} | {row['validation']:.2f} |"
        )
    print(f"anonymous memory, last to first: {found[-1]['anonymous'] / found[0]['anonymous']:.3f}")


def ratio(folder: pathlib.Path, counts: tuple[int, int] = (1_000, 40_000)) -> float:
    """Anonymous memory of a stream over many records, by that of one over few.

    Args:
        folder: Where the records are written.
        counts: How many, few first.
    """
    few, many = (_median(folder, count, rounds=3)["anonymous"] for count in counts)
    return many / few


def _median(folder: pathlib.Path, count: int, rounds: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--of", str(folder), "--counts", str(count)]
    rows = [json.loads(subprocess.check_output(command).splitlines()[-1]) for _ in range(rounds)]
    return {key: sorted(row[key] for row in rows)[rounds // 2] for key in rows[0]}


def _measure(folder: pathlib.Path, count: int) -> dict[str, float]:
    import numpy as np

    from segdata.adapters import tf as adapter
    from segdata.core import records
    from segdata.core.augment import Augment
    from segdata.core.stream import Stream

    manifest = folder / f"{count}.json"
    packed = records.opened(manifest, size=SIZE, count=count, source={})
    if packed is None:
        some = np.random.default_rng(0).integers(0, 256, (100, *SIZE, 4), np.uint8)
        packed = records.write(
            manifest, (some[i % 100] for i in range(count)), size=SIZE, source={}
        )
    augment = Augment(horizontal_flip=0.5, contrast_range=(0.8, 1.25), rotation_range=(-15, 15))
    begun = time.perf_counter()
    batches = iter(adapter.training(Stream(packed, batch=BATCH, augment=augment)))
    next(batches)
    first = time.perf_counter() - begun
    for _ in range(BATCHES):
        next(batches)
    begun = time.perf_counter()
    validation = iter(adapter.evaluation(packed, batch=BATCH))
    next(validation)
    validated = time.perf_counter() - begun
    for _ in validation:
        pass
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    anonymous = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
    return {
        "megabytes": packed.path.stat().st_size / 1e6,
        "anonymous": anonymous / 1024,
        "first": first,
        "validation": validated,
    }


if __name__ == "__main__":
    main()
