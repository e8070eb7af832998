"""Precision, compilation and the number of devices, chosen from the hardware.

Half precision pays only where the hardware multiplies in it, and XLA only where it beats the
library's own kernels; on the wrong machine either costs a factor of ten. So the hardware is
detected, the choice is printed, and unsupported settings raise ValueError. The environment that
must be set before Keras loads its backend is here too.
"""

import dataclasses
import os
import pathlib
import subprocess
import sys
from typing import Literal

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Compilation = Literal["auto", "on", "off"]
Policy = Literal["float32", "mixed_bfloat16", "mixed_float16"]

_POLICY: dict[Precision, Policy] = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
_PRECISION: dict[Policy, Precision] = {policy: name for name, policy in _POLICY.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
    """The hardware that a model runs on."""

    name: str
    """The product name of a device, such as "NVIDIA H200"."""

    kind: Literal["cpu", "gpu", "tpu"]

    flags: frozenset[str] = frozenset()
    """Instruction sets of a CPU, as Linux names them."""

    count: int = 1
    """How many of them a process sees."""

    capability: float | None = None
    """CUDA compute capability of the least capable GPU; None where it is not known."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Precision, compilation and devices for some hardware."""

    hardware: str
    """The product name of a device."""

    precision: Policy
    """A Keras dtype policy."""

    compile: bool
    """Whether XLA compiles the model."""

    devices: int = 1
    """How many devices share each batch of a training."""

    def __post_init__(self) -> None:
        """Raises ValueError if there are no devices."""
        if self.devices < 1:
            raise ValueError(f"devices is {self.devices}; it must be 1 or more")

    def __str__(self) -> str:
        count = f"{self.devices} × " if self.devices > 1 else ""
        return f"{count}{self.hardware}: {self.precision}, {'XLA' if self.compile else 'no XLA'}"


def prepare_environment(*, deterministic: bool = False) -> None:
    """Sets the variables that TensorFlow reads once, on import; call it before Keras is imported.

    oneDNN's kernels are off by default on CPUs without AVX-512, although they are nearly twice as
    fast there (AMD Zen 3, 2 cores, U-Net 16–256 at 128×128: 22 rather than 12 images/s).

    Args:
        deterministic: Whether the same run must give the same weights, bit for bit.

    Raises:
        ValueError: If `deterministic` is set after TensorFlow was imported.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # warnings, but no plans
    if not deterministic or os.environ.get("TF_DETERMINISTIC_OPS") == "1":
        return
    if "tensorflow" in sys.modules:
        raise ValueError(
            "deterministic must be set before TensorFlow is loaded; "
            "set TF_DETERMINISTIC_OPS=1 in the environment."
        )
    os.environ["TF_DETERMINISTIC_OPS"] = "1"


def choose(
    precision: Precision = "auto",
    compilation: Compilation = "auto",
    *,
    devices: int | None = None,
    batch: int = 1,
    hardware: Hardware | None = None,
    backend: str | None = None,
) -> Choice:
    """Chooses precision, compilation and the number of devices, or checks those that are given.

    Args:
        precision: The precision of products; `auto` takes the fastest that trains well.
        compilation: Whether to compile with XLA; `auto` does where that is faster.
        devices: How many devices share a batch; if not given one CPU, or as many accelerators as
            can have equal shares.
        batch: Images in a batch.
        hardware: The hardware; detected if not given.
        backend: The Keras backend; the current one if not given.

    Returns:
        The choice. It is not applied; see `apply`.

    Raises:
        ValueError: If the hardware or the backend does not support a setting.
    """
    if hardware is None:
        hardware = detect()
    if backend is None:
        backend = _backend()
    devices = _shares(devices, batch, hardware, backend)
    return Choice(
        hardware=hardware.name,
        precision=_policy(precision, hardware),
        compile=_compiles(compilation, hardware, backend, devices=devices),
        devices=devices,
    )


def again(
    kept: Choice,
    precision: Precision = "auto",
    compilation: Compilation = "auto",
    *,
    devices: int | None = None,
    batch: int = 1,
) -> Choice:
    """The choice for a run that goes on: as it was, but on other hardware or asked for anew.

    Prints what has changed. Arguments as in `choose`.

    Raises:
        ValueError: As in `choose`; or if float16, which keeps a scale of the loss with the
            optimizer, would come or go.
    """
    here = detect()
    if kept.hardware == here.name:
        if devices is None and kept.devices <= here.count:
            devices = kept.devices
        if (precision, compilation, devices) == ("auto", "auto", kept.devices):
            return kept
        if precision == "auto":
            precision = _PRECISION[kept.precision]
    now = choose(precision, compilation, devices=devices, batch=batch, hardware=here)
    if kept.precision != now.precision and "mixed_float16" in (kept.precision, now.precision):
        own = _PRECISION[kept.precision]
        raise ValueError(
            f"this run was begun in {kept.precision} on {kept.hardware}, and {now} would be chosen "
            f"here; a run cannot come to float16 or leave it. Give --precision {own} where it is "
            "supported, or train anew."
        )
    if kept != now:
        print(f"begun on {kept}; going on on {now}", file=sys.stderr)
    return now


def apply(choice: Choice) -> None:
    """Sets the precision policy of all models built from now on."""
    import keras

    keras.config.set_dtype_policy(choice.precision)


def detect() -> Hardware:
    """Returns the hardware that Keras runs on: its accelerators, or else the CPU.

    Raises:
        ValueError: If Keras runs on neither TensorFlow nor JAX.
    """
    _backend()
    for kind in ("tpu", "gpu"):
        if devices := _devices(kind):
            names, capability = _nvidia() if kind == "gpu" else ((), None)
            name = names[0] if names else kind.upper()
            return Hardware(name=name, kind=kind, count=len(devices), capability=capability)
    return _cpu()


def _backend() -> str:
    import keras

    backend = str(keras.backend.backend())
    if backend not in ("tensorflow", "jax"):
        raise ValueError(
            f"KERAS_BACKEND is {backend!r}; this trains on 'tensorflow' and 'jax'. On others a run "
            "that is resumed would not end as one that was not stopped."
        )
    return backend


def _devices(kind: str) -> list[str]:
    import keras

    try:
        return keras.distribution.list_devices(kind)
    except RuntimeError:  # JAX, where there is none; TensorFlow gives an empty list
        return []


def _policy(precision: Precision, hardware: Hardware) -> Policy:
    capability = hardware.capability or 0.0
    fast = {
        "cpu": {"bfloat16"} if hardware.flags & {"amx_bf16", "avx512_bf16"} else set(),
        "gpu": {"bfloat16", "float16"}
        if capability >= 8
        else {"float16"}
        if capability >= 6 and capability != 6.1  # which has a 64th of float32's speed
        else set(),
        "tpu": {"bfloat16"},
    }[hardware.kind]
    if precision == "auto":
        precision = "bfloat16" if "bfloat16" in fast else "float16" if fast else "float32"
    # Every CPU emulates bfloat16 correctly, which is useful for tests only: it was 15 times slower
    # than float32 on Zen 3. float16 needs an accelerator; bfloat16 on a GPU needs Ampere.
    emulated = hardware.kind == "cpu" and precision == "bfloat16"
    if precision != "float32" and precision not in fast and not emulated:
        known = f" (compute capability {capability})" if hardware.capability else ""
        raise ValueError(
            f"precision is {precision!r}, which {hardware.name}{known} cannot multiply in; "
            f"use 'auto' or {' or '.join(map(repr, sorted(fast | {'float32'})))}."
        )
    return _POLICY[precision]


def _shares(devices: int | None, batch: int, hardware: Hardware, backend: str) -> int:
    """How many devices share a batch."""
    most = 1 if (hardware.kind, backend) == ("tpu", "tensorflow") else hardware.count
    fitting = [count for count in range(1, most + 1) if batch % count == 0]
    if devices is None:
        return 1 if hardware.kind == "cpu" else fitting[-1]
    if devices not in fitting:
        raise ValueError(
            f"devices is {devices}; it must be {' or '.join(map(str, fitting))}: {backend} can "
            f"train on {most} × {hardware.name} here, and each takes as many of the {batch} images "
            "of a batch."
        )
    return devices


def _compiles(compilation: Compilation, hardware: Hardware, backend: str, *, devices: int) -> bool:
    if backend == "jax":
        if compilation == "off":
            raise ValueError("compile is 'off', but JAX always compiles; use 'auto'.")
        return True
    if devices > 1:
        if compilation == "on":
            raise ValueError(
                f"compile is 'on', but TensorFlow trains on {devices} devices without XLA; use "
                "'auto', or one device, or KERAS_BACKEND=jax."
            )
        return False
    if os.environ.get("TF_DETERMINISTIC_OPS") == "1":
        if compilation == "on":
            raise ValueError(
                "compile is 'on', but Keras does not compile deterministic runs on TensorFlow; "
                "use 'auto'."
            )
        return False
    return compilation == "on" or (compilation == "auto" and hardware.kind != "cpu")


def _cpu() -> Hardware:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    flags = frozenset((found.get("flags") or found.get("Features") or "").split())
    count = max(len(_devices("cpu")), 1)
    return Hardware(name=found.get("model name", "CPU"), kind="cpu", flags=flags, count=count)


def _nvidia() -> tuple[tuple[str, ...], float | None]:
    """Names and lowest capability of NVIDIA GPUs; nothing where `nvidia-smi` does not answer."""
    query = ["nvidia-smi", "--query-gpu=compute_cap,index,uuid,name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, timeout=20, check=True
        ).stdout
        rows = [map(str.strip, line.split(",", 3)) for line in answer.splitlines() if line.strip()]
        shown = [(float(c), name) for c, index, uuid, name in rows if _is_visible(index, uuid)]
        return tuple(name for _, name in shown), min(c for c, _ in shown)
    except (OSError, ValueError, subprocess.SubprocessError):
        return (), None


def _is_visible(index: str, uuid: str) -> bool:
    """Whether CUDA may use a GPU, by `CUDA_VISIBLE_DEVICES`."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return True
    names = [name.strip() for name in chosen.split(",")]
    return index in names or any(name and uuid.startswith(name) for name in names)
