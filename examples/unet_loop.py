"""The U-Net in a loop of one's own: `python examples/unet_loop.py PACKED.json`.

The file is what `segdata.pack` made. The same loop runs on TensorFlow and, with KERAS_BACKEND=jax,
on JAX, where the step is a pure function.
"""

import argparse

import keras
import numpy as np

import unet
from segdata.core import records
from segdata.core.augment import Augment
from segdata.core.stream import Stream

parser = argparse.ArgumentParser()
parser.add_argument("packed", help="a manifest, beside the dataset in its folder `packed`")
parser.add_argument("--epochs", type=int, default=2)
asked = parser.parse_args()

augment = Augment(horizontal_flip=0.5, quarter_turns=True, contrast_range=(0.8, 1.25))
stream = Stream(records.load(asked.packed), batch=4, augment=augment, seed=0)
settings = unet.UNet(filters=(8, 16, 32), initializer="he_normal", standardise=True)
recipe = unet.Recipe(size=stream.size, model=settings)

keras.utils.set_random_seed(0)
network = unet.build(recipe)
optimizer = keras.optimizers.Adam(1e-2)
step = unet.train_step(network, optimizer, unet.losses.cross_entropy_dice)
variables = unet.Variables.of(network, optimizer)

for epoch in range(asked.epochs):
    start, losses = epoch * stream.steps_per_epoch, []
    for image, mask in stream.batches(start, stream.steps_per_epoch):
        variables, loss = step(variables, image, mask)
        losses.append(loss)
    print(f"epoch {epoch}: loss {np.mean([float(loss) for loss in losses]):.4f}")

variables.put_into(network, optimizer)
photo = stream.batch(0)[0][0, :61, :47]  # an image of any size
found = unet.predict(unet.Trained(network=network, recipe=recipe), photo)
nuclei = found.objects()
print(f"{found.mask.mean():.0%} foreground, {len(nuclei.area)} nuclei of {nuclei.area} pixels")
