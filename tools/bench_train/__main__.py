"""How fast recipes train, beside PyTorch with the same layers and what the machine can multiply.

    python tools/bench_train [--recipes NAME …] [--backends tensorflow jax torch] [--json FILE]

Each row is a process of its own, and all rows are measured in rounds, so that what else the machine
does meets all alike. `stream` trains on augmented batches, as `unet train` does; `fixed` on one
batch that is there already; what the stream costs more is the share of a step that waits for input.
`torch` is a plain U-Net of the same layers in PyTorch, channels last, on one batch too, in the
faster of float32 and bfloat16. The peak is that of a large product of matrices by the same backend
in the same process; of the model, multiplications and additions of its convolutions are counted,
three times forward for a training step. The images are drawn, of the recipe's size. Needs keras,
numpy, numba, pillow and the backend.
"""

import argparse
import collections
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from layers import flops

from unet.recipes import RECIPES

BACKENDS = ("tensorflow", "jax", "torch")
DEFAULT = ("dsb2018", "carvana", "dsb2018-dropout", "cityscapes-road", "carvana-fcn")


def main() -> None:
    """Measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=list(DEFAULT), choices=list(RECIPES))
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=BACKENDS)
    parser.add_argument("--precisions", nargs="+", default=["auto"], help="as of `unet train`")
    parser.add_argument("--size", type=int, nargs=2, help="height and width, if not the recipe's")
    parser.add_argument("--batch", type=int, help="if not the recipe's")
    parser.add_argument("--seconds", type=float, default=8.0, help="of training a window")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)  # a row's own process
    asked = parser.parse_args()
    if asked.one:
        import row

        print(json.dumps(row.measured(**asked.one)))
        return
    rows = [
        {"recipe": name, "backend": backend, "precision": precision, "seconds": asked.seconds}
        | {"size": asked.size, "batch": asked.batch}
        for name in asked.recipes
        for precision in asked.precisions
        for backend in asked.backends
        if backend != "torch" or precision == asked.precisions[0]
    ]
    found: dict[int, list[dict[str, Any]]] = collections.defaultdict(list)
    failed: dict[int, str] = {}
    for _ in range(asked.rounds):
        for number, job in enumerate(rows):
            if number in failed:
                continue
            try:
                found[number].append(_in_process(job))
            except RuntimeError as error:
                failed[number] = str(error)
                print(f"failed: {job['recipe']} on {job['backend']}: {error}", file=sys.stderr)
    figures = [job | _middle(found[n]) for n, job in enumerate(rows) if n not in failed]
    _print(figures)
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")
    if failed:
        sys.exit("some rows failed")


def _in_process(job: dict[str, Any]) -> dict[str, Any]:
    """What a row's own process measured.

    Raises:
        RuntimeError: If it fails; the last line that it wrote.
    """
    backend = job["backend"] if job["backend"] != "torch" else "jax"  # for layers alone
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(pathlib.Path(__file__).parent), "--one"]
    with tempfile.TemporaryFile("w+") as log:
        done = subprocess.run(
            [*command, json.dumps(job | {"begun": time.time()})],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            check=False,
        )
        log.seek(0)
        lines = log.read().strip().splitlines()
    if done.returncode:
        raise RuntimeError(lines[-1] if lines else f"exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def _middle(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each number."""
    return {
        name: statistics.median(each[name] for each in rounds)
        if isinstance(value, int | float)
        else value
        for name, value in rounds[0].items()
    }


def _print(figures: list[dict[str, Any]]) -> None:
    print(
        "| recipe | size, batch | backend | stream, images/s | fixed | waits | of the peak | "
        "first step, s |\n|---|---|---|---:|---:|---:|---:|---:|"
    )
    for row in figures:
        height, width = row["shape"]
        rate = row.get("stream", row["fixed"])
        waits = f"{1 - row['stream'] / row['fixed']:.1%}" if "stream" in row else ""
        share = 3 * flops(RECIPES[row["recipe"]].model, height, width) * rate / row["peak"]
        print(
            f"| {row['recipe']} | {height}×{width}, {row['images']} | {row['backend']}, "
            f"{row['policy']} | {row.get('stream', float('nan')):,.1f} | {row['fixed']:,.1f} "
            f"| {waits} | {share:.0%} | {row['first_step']:.1f} |".replace("| nan |", "| |")
        )


if __name__ == "__main__":
    main()
