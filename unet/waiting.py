"""How long a training waits for its input.

What is added up is the time from when a batch is asked for until it is there. Of TensorFlow the
pipeline itself takes the times, where batches leave it, since they are asked for in a graph.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any


class Waiting:
    """The time that was spent waiting for the batches of streams."""

    def __init__(self) -> None:
        self._own = 0.0
        self._totals: list[Any] = []

    @property
    def seconds(self) -> float:
        """The sum so far."""
        return self._own + sum(float(total.numpy()) for total in self._totals)

    def of(self, stream: Iterable[Any]) -> Any:
        """The same batches as a `tf.data.Dataset` where they are one, else as a generator.

        Where batches are computed ahead, or shown to several devices, the sum is an upper bound.
        """
        return self._piped(stream) if hasattr(stream, "element_spec") else self._each(stream)

    def _each(self, stream: Iterable[Any]) -> Iterator[Any]:
        batches = iter(stream)
        while True:
            begun = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._own += time.monotonic() - begun
            yield batch

    def _piped(self, stream: Any) -> Any:
        import tensorflow as tf

        with tf.device("CPU:0"):
            total = tf.Variable(0.0, dtype=tf.float64)
            self._totals.append(total)

            def now() -> Any:  # TensorFlow's own is refused where all has to be deterministic
                return tf.numpy_function(time.monotonic, [], tf.float64)

            def note(asked: Any, batch: Any) -> Any:
                waited = total.assign_add(now() - asked, read_value=False)
                with tf.control_dependencies([waited]):
                    return tf.nest.map_structure(tf.identity, batch)

            # A batch that is ready is taken from the buffer; none may be put behind the clocks.
            clock = tf.data.Dataset.counter().map(lambda _: now())
            data = tf.data.Dataset.zip((clock, stream.prefetch(tf.data.AUTOTUNE))).map(note)
            options = tf.data.Options()
            options.experimental_optimization.inject_prefetch = False
            options.experimental_optimization.map_parallelization = False
            return data.with_options(options)
