"""What holds where the platform lacks something."""

import subprocess
import sys

import pytest

# What Windows lacks of what other systems have, and this project has used.
WITHOUT = """
import importlib, os, pkgutil, sys
sys.modules["fcntl"] = None
for name in ("geteuid", "getuid", "sched_getaffinity", "O_NOFOLLOW", "O_DIRECTORY"):
    delattr(os, name)
import segdata, unet
for package in (segdata, unet):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
import tensorflow_datasets as tfds
from segdata.sources import dsb2018
from segdata.testing import damage_kinds
manual_dir, data_dir = (os.path.join(sys.argv[1], name) for name in ("manual", "data"))
dsb2018.draw_zips(manual_dir, examples=3, seed=0)
builder = tfds.builder("dsb2018", data_dir=data_dir)
config = tfds.download.DownloadConfig(manual_dir=manual_dir)
builder.download_and_prepare(download_config=config)
whole = dict(size=(32, 32), batch=2, data_dir=data_dir)
augment = segdata.Augment()
image, _ = next(iter(segdata.train_batches("dsb2018", "train", augment=augment, seed=0, **whole)))
print(image.shape, damage_kinds.KINDS["forbidden"].outcomes["objects"])
"""


@pytest.mark.heavy
def test_all_is_imported_built_packed_and_read_without_locks_and_users(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "(2, 32, 32, 3) read"
    assert not list(tmp_path.rglob("*unfinished*"))
