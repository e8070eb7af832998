import os
import subprocess
import sys

import pytest

NO_CACHE = """
import sys
import numpy as np
from segdata.archives import resizing
from segdata.core import random, stream
from segdata.core.augment import Augment
mask = np.arange(16, dtype=np.uint8).reshape(4, 4)
image = resizing.image(mask[..., None], (2, 2))[..., 0]
print(resizing.mask(mask, (2, 2)).tolist(), image.tolist())
print(random.permute(np.full(10, 7, np.uint64), np.arange(10), 10).tolist())
pixels = np.arange(16, dtype=np.uint8).reshape(1, 2, 2, 4)
flip = Augment(horizontal_flip=1)
print(stream.apply(flip, pixels, seed=0, epoch=[0], example=[0]).ravel().tolist())
"""


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
"""


COUNT = """
from numba.core import caching
tried, load = [], caching.IndexDataCacheFile.load
caching.IndexDataCacheFile.load = lambda self, key: (tried.append(1), load(self, key))[1]
from segdata.core.system import tfrecord
print([tfrecord.framed(b"abc").hex() for _ in range(3)][-1], len(tried))
"""


@pytest.mark.heavy
def test_what_is_damaged_is_tried_once_and_kept_anew(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}

    def run() -> list[str]:
        command = [sys.executable, "-c", COUNT]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.split()

    whole = run()
    kept = [*tmp_path.rglob("*.nbi"), *tmp_path.rglob("*.nbc")]
    assert len(kept) == 2
    for path in kept:
        path.write_bytes(b"damaged")
        assert run() == whole
        assert run() == whole
        assert b"damaged" not in {each.read_bytes() for each in kept}


@pytest.mark.heavy
@pytest.mark.parametrize("how", ["none", "full", "damaged"])
def test_where_nothing_can_be_kept_it_is_compiled_each_time(tmp_path, how):
    folder = tmp_path / "cache"
    folder.mkdir()
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", NO_CACHE]
    if how == "none":
        folder.rmdir()
        folder.write_text("no folder")
    if how == "full":
        command = [sys.executable, "-c", FULL + NO_CACHE]
    if how == "damaged":
        subprocess.run(command, env=environment, check=True, capture_output=True)
        for path in [*folder.rglob("*.nbi"), *folder.rglob("*.nbc")]:
            path.write_bytes(b"damaged")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[[0, 2], [8, 10]] [[3, 5], [11, 13]]",
        "[8, 7, 5, 2, 0, 4, 6, 1, 3, 9]",
        "[4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11]",
    ]
