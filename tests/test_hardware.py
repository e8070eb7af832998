import dataclasses
import os
import subprocess

import keras
import pytest

from unet import hardware
from unet.hardware import Choice, Hardware

PLAIN = Hardware(name="plain CPU", kind="cpu", flags=frozenset({"avx2", "fma"}))
AMX = Hardware(name="AMX CPU", kind="cpu", flags=frozenset({"avx512f", "amx_bf16"}))
ZEN4 = Hardware(name="Zen 4", kind="cpu", flags=frozenset({"avx512_bf16"}))
P100, PASCAL, VOLTA, TURING, AMPERE, HOPPER = (
    Hardware(name=f"GPU {capability}", kind="gpu", capability=capability)
    for capability in (6.0, 6.1, 7.0, 7.5, 8.0, 9.0)
)
OLD = Hardware(name="Maxwell", kind="gpu", capability=5.2)
TWO = "9.0, 0, GPU-aa1, NVIDIA H100\n7.5, 1, GPU-bb2, Tesla T4\n"
UNKNOWN = Hardware(name="GPU", kind="gpu")
TPU = Hardware(name="TPU", kind="tpu")


@pytest.mark.parametrize(
    ("machine", "precision", "compiled"),
    [
        (PLAIN, "float32", False),
        (AMX, "mixed_bfloat16", False),
        (ZEN4, "mixed_bfloat16", False),
        (OLD, "float32", True),
        (UNKNOWN, "float32", True),
        (PASCAL, "float32", True),
        (P100, "mixed_float16", True),
        (VOLTA, "mixed_float16", True),
        (TURING, "mixed_float16", True),
        (AMPERE, "mixed_bfloat16", True),
        (HOPPER, "mixed_bfloat16", True),
        (TPU, "mixed_bfloat16", True),
    ],
)
def test_the_hardware_decides(machine, precision, compiled):
    choice = hardware.choose(hardware=machine, backend="tensorflow")
    assert choice == Choice(hardware=machine.name, precision=precision, compile=compiled)
    assert machine.name in str(choice)


@pytest.mark.parametrize(
    ("machine", "precision"),
    [(PLAIN, "float16"), (AMX, "float16"), (VOLTA, "bfloat16"), (OLD, "float16"), (TPU, "float16")],
)
def test_what_cannot_be_had_is_refused(machine, precision):
    with pytest.raises(ValueError, match=rf"{precision}.*{machine.name}.*'float32'"):
        hardware.choose(precision, hardware=machine, backend="tensorflow")


def test_what_can_be_had_is_given():
    def choice(machine, *wishes):
        return hardware.choose(*wishes, hardware=machine, backend="tensorflow")

    assert choice(AMPERE, "float16").precision == "mixed_float16"
    assert choice(PLAIN, "bfloat16").precision == "mixed_bfloat16"
    assert choice(AMX, "float32").precision == "float32"
    assert choice(PLAIN, "auto", "on").compile
    assert not choice(AMPERE, "auto", "off").compile


def test_accelerators_share_a_batch_equally_and_one_cpu_has_it_all():
    def devices(machine, count, **given):
        machine = dataclasses.replace(machine, count=count)
        return hardware.choose(hardware=machine, **{"backend": "jax", **given}).devices

    assert devices(AMPERE, 4, batch=16) == 4
    assert devices(AMPERE, 3, batch=16) == 2
    assert devices(AMPERE, 8, batch=7) == 7
    assert devices(AMPERE, 3, batch=5) == devices(AMPERE, 8, batch=1) == 1
    assert devices(AMPERE, 4) == 1  # where nothing is trained
    assert devices(PLAIN, 4, batch=16) == 1
    assert devices(TPU, 4, batch=16) == 4
    assert devices(TPU, 4, batch=16, backend="tensorflow") == 1
    assert devices(PLAIN, 4, batch=16, devices=4) == 4
    assert devices(AMPERE, 4, batch=16, devices=1) == 1


@pytest.mark.parametrize(
    ("devices", "batch", "allowed"),
    [(3, 16, "1 or 2 or 4"), (8, 16, "1 or 2 or 4"), (2, 15, "1 or 3"), (0, 1, "1"), (-1, 2, "1")],
)
def test_devices_that_cannot_share_a_batch_are_refused_by_name(devices, batch, allowed):
    machine = dataclasses.replace(AMPERE, count=4)
    with pytest.raises(ValueError, match=rf"devices is {devices}; it must be {allowed}.*: .*8\.0"):
        hardware.choose(hardware=machine, backend="jax", devices=devices, batch=batch)


def test_tensorflow_trains_on_several_devices_without_xla():
    machine = dataclasses.replace(AMPERE, count=2)

    def choose(*wishes, **given):
        return hardware.choose(*wishes, hardware=machine, batch=16, **given)

    assert not choose(backend="tensorflow").compile
    assert choose(backend="tensorflow", devices=1).compile
    assert choose(backend="jax").compile
    assert str(choose(backend="jax")) == "2 × GPU 8.0: mixed_bfloat16, XLA"
    with pytest.raises(ValueError, match=r"compile is 'on'.*on 2 devices without XLA"):
        choose("auto", "on", backend="tensorflow")


@pytest.mark.parametrize(
    ("kept", "count", "asked", "expected"),
    [
        (2, 4, None, 2),  # as before
        (4, 2, None, 2),  # there are fewer
        (1, 4, None, 1),
        (1, 4, 4, 4),
        (4, 4, 1, 1),
        (3, 2, None, 2),
    ],
)
def test_a_run_goes_on_with_its_devices_where_there_are_as_many(
    monkeypatch, kept, count, asked, expected
):
    machine = dataclasses.replace(AMPERE, count=count)
    monkeypatch.setattr(hardware, "detect", lambda: machine)
    begun = Choice(hardware=machine.name, precision="float32", compile=False, devices=kept)
    now = hardware.again(begun, devices=asked, batch=12)
    assert now.devices == expected
    assert now.precision == "float32"  # what was not asked for stays


def test_jax_always_compiles():
    assert hardware.choose(hardware=PLAIN, backend="jax").compile
    with pytest.raises(ValueError, match="JAX always compiles"):
        hardware.choose("auto", "off", hardware=PLAIN, backend="jax")


def test_deterministic_runs_are_not_compiled(monkeypatch):
    monkeypatch.setenv("TF_DETERMINISTIC_OPS", "1")
    assert not hardware.choose(hardware=AMPERE, backend="tensorflow").compile
    with pytest.raises(ValueError, match="deterministic"):
        hardware.choose("auto", "on", hardware=AMPERE, backend="tensorflow")


def test_this_machine_is_found_and_named():
    machine = hardware.detect()
    assert machine.name
    assert hardware.choose(hardware=machine).hardware == machine.name


def test_the_least_capable_gpu_counts(monkeypatch):
    def answer(*_args, **_options):
        return subprocess.CompletedProcess(
            [], 0, "9.0, 0, GPU-aa1, NVIDIA H100\n7.5, 1, GPU-bb2, Tesla T4\n", ""
        )

    monkeypatch.setattr(subprocess, "run", answer)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(
        keras.distribution, "list_devices", lambda kind: ["gpu:0", "gpu:1"] * (kind == "gpu")
    )
    machine = hardware.detect()
    assert machine == Hardware(name="NVIDIA H100", kind="gpu", count=2, capability=7.5)


@pytest.mark.parametrize(
    ("visible", "name", "capability"),
    [("0", "NVIDIA H100", 9.0), ("1", "Tesla T4", 7.5), ("GPU-bb", "Tesla T4", 7.5)],
)
def test_a_gpu_that_is_hidden_does_not_count(monkeypatch, visible, name, capability):
    done = subprocess.CompletedProcess([], 0, TWO, "")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_options: done)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: ["0"] * (kind == "gpu"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert hardware.detect() == Hardware(name=name, kind="gpu", capability=capability)


def test_a_gpu_without_nvidias_tool_is_still_a_gpu(monkeypatch):
    def missing(*_args, **_options):
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", missing)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: ["0"] * (kind == "gpu"))
    assert hardware.detect() == UNKNOWN


def test_a_backend_that_knows_no_accelerators_runs_on_the_cpu(monkeypatch):
    def unknown(kind):
        raise RuntimeError(f"Unknown backend {kind}")

    monkeypatch.setattr(keras.distribution, "list_devices", unknown)
    assert hardware.detect().kind == "cpu"


def test_a_choice_is_applied_to_the_models_built_next():
    try:
        hardware.apply(Choice(hardware="", precision="mixed_bfloat16", compile=False))
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_the_environment_is_set_once_and_never_against_the_user(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.delenv("TF_DETERMINISTIC_OPS", raising=False)
    hardware.prepare_environment()
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert "TF_DETERMINISTIC_OPS" not in os.environ


def test_determinism_asked_for_too_late_is_refused(monkeypatch):
    monkeypatch.delenv("TF_DETERMINISTIC_OPS", raising=False)
    with pytest.raises(ValueError, match="before TensorFlow is loaded"):
        hardware.prepare_environment(deterministic=True)
    monkeypatch.setenv("TF_DETERMINISTIC_OPS", "1")
    hardware.prepare_environment(deterministic=True)


def test_other_backends_are_refused_by_name(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    for ask in (hardware.detect, lambda: hardware.choose(hardware=PLAIN)):
        with pytest.raises(ValueError, match=r"KERAS_BACKEND is 'torch'; .*'tensorflow' and 'jax'"):
            ask()
