import importlib
import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest

TOOLS = pathlib.Path(__file__).parents[1] / "tools"


def test_the_demo_removes_nothing_that_it_did_not_make(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")
    command = [sys.executable, str(TOOLS / "demo.py"), "--to", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "holds other files than those of a demo" in done.stderr
    assert (tmp_path / "data" / "mine.txt").read_text() == "mine"


@pytest.mark.heavy
def test_the_benchmark_measures_its_rows_and_judges_its_goals(built_dsb2018, tmp_path):
    figures, picture = tmp_path / "figures.json", tmp_path / "bars.png"
    command = [sys.executable, str(TOOLS / "bench"), "--data_dir", str(built_dsb2018)]
    command += ["--rows", "segdata none", "tf.data batched none", "segdata flip + colour 256²"]
    command += ["--seconds", "0.05", "--rounds", "1", "--megabytes", "8", "--no-memory"]
    done = subprocess.run(
        [*command, "--json", str(figures), "--picture", str(picture)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    rates = found["images_per_second"]
    asked = {"segdata none", "tf.data batched none", "segdata flip + colour 256²"}
    assert set(rates) == {"copy limit none", *asked}
    assert min(rates.values()) > 0
    goals = {goal["goal"]: goal for goal in found["goals"]}
    best = goals["none: 10 × the best peer"]
    assert best["peer"] == "tf.data batched none"
    times = rates["segdata none"] / rates["tf.data batched none"]
    assert best["value"] == pytest.approx(times, abs=1e-3)
    assert best["state"] == ("met" if times >= 10 else "missed")
    assert goals["everything: 5 × the best peer"]["state"] == "not measured"
    assert goals["first batch, cold: 5.0 s"]["value"] > goals["first batch, warm: 1.0 s"]["value"]
    assert picture.stat().st_size > 1000


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS / "bench"))
    rows: Any = importlib.import_module("rows")
    monkeypatch.setitem(rows.ROWS, "a peer", rows.Row(rows.ours.gather, (), ("no_such_module",)))
    assert "no_such_module not installed" in rows.left_out()["a peer"]
