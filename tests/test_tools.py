import pathlib
import subprocess
import sys

TOOLS = pathlib.Path(__file__).parents[1] / "tools"


def test_the_demo_removes_nothing_that_it_did_not_make(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")
    command = [sys.executable, str(TOOLS / "demo.py"), "--to", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "holds other files than those of a demo" in done.stderr
    assert (tmp_path / "data" / "mine.txt").read_text() == "mine"
