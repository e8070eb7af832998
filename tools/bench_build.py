"""How fast datasets are built, beside what decoding and encoding alone take.

    python tools/bench_build.py [--names carvana] [--examples 400] [--drawn DIR] [--json FILE]

All is measured in one run, on drawn sources. "Limit" is the decoder's and the encoder's calls for
each example on all cores, a process each, from memory to memory, and nothing else. "Plain TFDS" is
a builder as TFDS's guide has them: one process, Pillow, arrays to the features; the archives are
unpacked for it beforehand. Each run is a process of its own, the fastest of a few counts, and what
other processes took of the machine meanwhile is told. Starting Python and importing is measured
apart; what counts is the command from there on.
"""

import argparse
import filecmp
import functools
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
from typing import Any

from segdata import sources
from segdata.archives import trees
from segdata.core.system import parallel
from segdata.sources import carvana
from segdata.testing import layouts

NAMES = sources.OURS
RUNS = 4  # of the limit and of our build, in turn


def main() -> None:
    """Measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description="How fast datasets are built.")
    parser.add_argument("--names", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--examples", type=int, default=400, help="how many, and a quarter of that")
    parser.add_argument("--drawn", type=pathlib.Path, help="keep the drawn sources there")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures to this file")
    asked = parser.parse_args()
    machine = f"{platform.processor() or platform.machine()}, {parallel.cores()} cores"
    print(f"{machine}; Python {platform.python_version()}")
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.names:
            drawn = (asked.drawn or pathlib.Path(folder)) / name
            measured[name] = _measured(name, drawn, asked.examples)
            print(_table(name, asked.examples, measured[name]), flush=True)
    if asked.json:
        figures = {"machine": machine, "examples": asked.examples, "measured": measured}
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")


def _measured(name: str, drawn: pathlib.Path, examples: int) -> dict[str, Any]:
    few, many = (_drawn(name, drawn / str(count), count) for count in (examples // 4, examples))
    with tempfile.TemporaryDirectory() as folder:
        places = [pathlib.Path(folder, str(run)) for run in range(RUNS)]
        limits, builds = [], []
        for place in places:
            limits.append(_alone("limit", name, many, place))
            builds.append(_alone("segdata", name, many, place))
        small = _alone("segdata", name, few, pathlib.Path(folder, "few"))
        plain = _alone("plain", name, many, pathlib.Path(folder, "plain"))
        plain_small = _alone("plain", name, few, pathlib.Path(folder, "plain few"))
        identical = all(_same(places[0], place) for place in places[1:])
    limit, build = (min(runs, key=lambda run: run["seconds"]) for runs in (limits, builds))
    best = {"limit": limit, "segdata": build, "plain": plain}
    seconds = {kind: run["seconds"] for kind, run in best.items()}
    return {
        "examples_per_second": {kind: examples / spent for kind, spent in seconds.items()},
        "of_the_limit": {kind: seconds["limit"] / spent for kind, spent in seconds.items()},
        "seconds": {
            "limit": [run["seconds"] for run in limits],
            "segdata": [run["seconds"] for run in builds],
        },
        "taken_by_others": {kind: run["others"] for kind, run in best.items()},
        "start_seconds": {"segdata": builds[0]["start"], "plain": plain["start"]},
        "start_mib": {"segdata": builds[0]["start_mib"], "plain": plain["start_mib"]},
        "peak_mib": {
            "segdata": [small["peak_mib"], builds[0]["peak_mib"]],
            "plain": [plain_small["peak_mib"], plain["peak_mib"]],
        },
        "identical": identical,
    }


def _table(name: str, examples: int, measured: dict[str, Any]) -> str:
    few, rates = examples // 4, measured["examples_per_second"]
    lines = [
        f"\n| {name} | examples/s | of the limit | MiB at {few} | MiB at {examples} |",
        f"|{'-' * 34}|---:|---:|---:|---:|",
    ]
    titles = {
        "limit": "limit: decode and encode alone",
        "segdata": "segdata build",
        "plain": "plain TFDS, one process",
    }
    for kind, title in titles.items():
        memory = " | ".join(f"{peak:,.0f}" for peak in measured["peak_mib"].get(kind, ())) or "|"
        share = measured["of_the_limit"][kind]
        lines.append(f"| {title:32} | {rates[kind]:8.1f} | {share:5.2f} | {memory} |")
    started = ", ".join(f"{kind} {spent:.1f}" for kind, spent in measured["start_seconds"].items())
    idle = ", ".join(f"{kind} {spent:,.0f}" for kind, spent in measured["start_mib"].items())
    others = ", ".join(f"{kind} {took:.0%}" for kind, took in measured["taken_by_others"].items())
    same = "identical" if measured["identical"] else "NOT identical"
    lines += [
        f"{RUNS} builds: {same}. Start, not counted: {started} s; {idle} MiB.",
        f"Taken by other processes meanwhile: {others}.",
    ]
    return "\n".join(lines)


def _drawn(name: str, folder: pathlib.Path, examples: int) -> pathlib.Path:
    """A manual dir, drawn unless it is there; `unpacked` in it is for the plain builder."""
    if not (folder / "unpacked").exists():
        whole = functools.partial(layouts.zip_of_zips, name=carvana.COMPETITION)
        more = {"write": whole} if name == carvana.SOURCE.name else {}
        if draw := sources.named(name).draw:
            draw(folder, examples=examples, seed=0, **more)
        for path in folder.glob("*.zip"):
            _unpack(trees.open(path), folder / "unpacked")
    return folder


def _unpack(tree: trees.Tree, to: pathlib.Path) -> None:
    for name in tree.names:
        if name.endswith(".zip"):
            _unpack(tree.sub(name), to)
            continue
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tree.read(name))


def _alone(kind: str, name: str, drawn: pathlib.Path, data_dir: pathlib.Path) -> dict[str, float]:
    """What `build_once.py` says, in a process of its own."""
    script = pathlib.Path(__file__).with_name("build_once.py")
    for path in drawn.rglob("*"):  # the page cache holds all of it
        if path.is_file():
            path.read_bytes()
    done = subprocess.run(
        [sys.executable, script, kind, name, drawn, data_dir],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{kind} of {name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _same(one: pathlib.Path, other: pathlib.Path) -> bool:
    names = [
        {path.relative_to(place) for path in place.rglob("*") if path.is_file()}
        for place in (one, other)
    ]
    alike = (filecmp.cmp(one / name, other / name, shallow=False) for name in names[0])
    return names[0] == names[1] and all(alike)


if __name__ == "__main__":
    main()
