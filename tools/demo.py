"""Everything once, without an account: draws nuclei, builds, trains, scores and shows.

    python tools/demo.py [--to demo]

Each step is a command that you could type; it is printed before it runs.
"""

import argparse
import pathlib
import shlex
import shutil
import subprocess
import sys
import time


def main() -> int:
    """Runs the steps one after the other; stops at the first that fails."""
    parser = argparse.ArgumentParser(description="Everything once, without an account.")
    parser.add_argument("--to", type=pathlib.Path, default=pathlib.Path("demo"))
    to = parser.parse_args().to
    source, data, run = to / "source", to / "data", to / "run"
    mark = to / "made by the demo"
    if mark.exists():
        for folder in (source, data, run):
            shutil.rmtree(folder, ignore_errors=True)
    elif to.exists() and any(to.iterdir()):
        print(f"{to} holds other files than those of a demo; name another folder.", file=sys.stderr)
        return 2
    to.mkdir(parents=True, exist_ok=True)
    mark.touch()
    begun = time.monotonic()
    dataset = "dsb2018/instances"  # masks, and maps of single nuclei
    trained = ["--recipe=dsb2018", "--dataset", dataset, "--epochs=6", "--steps_per_epoch=58"]
    trained += ["--ema_momentum=0.98"]  # the recipe's is for ten times as many batches
    steps = [
        ["segdata", "draw", "dsb2018", "--to", source, "--examples", "256"],
        ["segdata", "build", dataset, "--manual_dir", source, "--data_dir", data],
        ["unet", "train", *trained, "--data_dir", data, "--out", run],
        ["unet", "evaluate", run, "--objects"],
    ]
    for step in steps:
        program, *arguments = map(str, step)
        print(f"\n$ {shlex.join([program, *arguments])}", flush=True)
        done = subprocess.run([pathlib.Path(sys.executable).with_name(program), *arguments])
        if done.returncode:
            return done.returncode
    report = (run / "report.html").resolve()
    print(f"\nDone in {time.monotonic() - begun:.0f} s. Look at {report.as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
