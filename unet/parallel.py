"""A training on several devices: each has its rows of a batch, and a step is the same as on one.

Loss, gradients and scores are those of the whole batch, also of a loss that is no mean over images;
batch normalisation takes the moments of the whole batch, and dropout draws for all of it. Variables
are those of one device, so a checkpoint does not depend on how many there were.

On JAX `keras.distribution` does all that: one program over the batch, which XLA divides. On
TensorFlow Keras clips, accumulates and averages what each device has by itself; so here
`tf.distribute` spreads forward and backward pass alone, and the first device has the variables and
does the rest.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from unet import losses


@contextlib.contextmanager
def scope(devices: int) -> Iterator[None]:
    """Models that are built and trained inside share each batch between some devices.

    Args:
        devices: How many, of those that Keras lists.
    """
    if devices == 1 or keras.backend.backend() != "jax":
        yield
        return
    names = keras.distribution.list_devices()[:devices]
    with keras.distribution.DataParallel(devices=names, auto_shard_dataset=False).scope():
        yield


def shared(network: Any, devices: int) -> Any:
    """The model for a training inside `scope`; on JAX or one device it is the same.

    Args:
        network: From uint8 [B, H, W, 3] to logits float32 [B, H, W, C], without an optimizer.
        devices: As in `scope`; they must divide B.

    Returns:
        A model of the same layers and variables, in the same order.
    """
    if devices == 1 or keras.backend.backend() != "tensorflow":
        return network
    copy: Any = keras.models.clone_model(network, clone_function=_same)
    for layer in copy.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
    made: Any = _Shared(copy.inputs[0], copy.outputs[0], name=network.name)
    made.devices = tuple(map(str.upper, keras.distribution.list_devices()[:devices]))
    return made


class _Shared(keras.Model):
    """A model whose training step is shared between devices of TensorFlow."""

    devices: Sequence[str] = ()

    def train_step(self, data):
        """As Keras has it, but for where the gradients come from."""
        import tensorflow as tf

        strategy, count = _strategy(tuple(self.devices)), len(self.devices)
        images, masks, _ = keras.utils.unpack_x_y_sample_weight(data)
        rows = tf.split(images, count), tf.split(masks, count)
        weights, states = (
            [tf.convert_to_tensor(variable) for variable in variables]
            for variables in (self.trainable_variables, self.non_trainable_variables)
        )
        found = strategy.run(self._part, args=(rows, weights, states))
        each: Any = keras.tree.map_structure
        gradients, losses, states, logits = each(strategy.experimental_local_results, found)
        with tf.device(self.devices[0]):
            for variable, values in zip(self.non_trainable_variables, states, strict=True):
                variable.assign(values[0])  # which all have in common
            self.optimizer.apply([*map(tf.add_n, gradients)], self.trainable_variables)
            (tracker,) = (metric for metric in self.metrics if metric.name == "loss")
            tracker.update_state(tf.add_n(losses), sample_weight=tf.shape(images)[0])
            return self.compute_metrics(images, masks, tf.concat(logits, 0))

    def _part(self, rows: Any, weights: Any, states: Any) -> tuple[Any, ...]:
        """What a device does: its parts of gradients and loss, new states, and its logits."""
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        images, masks = (parts[_place(context)] for parts in rows)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            called: Any = self.stateless_call
            logits, states = called(weights, states, images, training=True)
            output = logits
            if self.loss is losses.batch_dice:  # of the batch as a whole
                output, masks = context.all_gather(logits, 0), tf.concat(rows[1], 0)
            # Keras divides it by the number of devices.
            loss = self.compute_loss(images, masks, output, training=True)
            scaled = self.optimizer.scale_loss(loss)
        return tape.gradient(scaled, weights), loss, states, logits


class _Rows(keras.layers.Layer):
    """Dropout that draws for a whole batch and takes what is for the rows of its device."""

    def __init__(self, dropout: keras.layers.Dropout):
        super().__init__(name=dropout.name, dtype=dropout.dtype_policy)
        self.dropout = dropout

    def call(self, inputs, training=False):
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        count = context.num_replicas_in_sync
        if count == 1 or not training:
            return self.dropout(inputs, training=training)
        whole = self.dropout(tf.concat([tf.ones_like(inputs)] * count, 0), training=True)
        return inputs * tf.split(whole, count)[_place(context)]


def _same(layer: Any) -> Any:
    return _Rows(layer) if isinstance(layer, keras.layers.Dropout) else layer


def _place(context: Any) -> int:
    """Which of the devices this is."""
    import tensorflow as tf

    return int(tf.get_static_value(context.replica_id_in_sync_group))


@functools.cache
def _strategy(devices: tuple[str, ...]) -> Any:
    """Sums are taken on one device, in the same order each time."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(
        devices, cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
