"""A loop of one's own in PyTorch: `python examples/torch_loop.py PACKED.json`.

The file is what `segdata.pack` made: this process needs neither TensorFlow nor TFDS.
"""

import argparse

import torch

from segdata.adapters.torch import Batches
from segdata.core import records
from segdata.core.augment import Augment
from segdata.core.stream import Stream

parser = argparse.ArgumentParser()
parser.add_argument("packed", help="a manifest, beside the dataset in its folder `packed`")
parser.add_argument("--epochs", type=int, default=2)
asked = parser.parse_args()

augment = Augment(horizontal_flip=0.5, quarter_turns=True, contrast_range=(0.8, 1.25))
stream = Stream(records.load(asked.packed), batch=8, augment=augment, seed=0)
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 1, 3, padding=1)
).to(memory_format=torch.channels_last)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)

for epoch in range(asked.epochs):
    start, total = epoch * stream.steps_per_epoch, 0.0
    # With several workers: DataLoader(Batches(...), batch_size=None, num_workers=2).
    # With several ranks: Stream(..., shard=(rank, ranks)).
    for image, mask in Batches(stream, start_step=start, steps=stream.steps_per_epoch):
        known = (mask != 255).float()  # the ignore label
        logits = network(image.float() / 255)[:, 0]
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, (mask == 1).float(), reduction="none"
        )
        loss = (losses * known).sum() / known.sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    print(f"epoch {epoch}: loss {total / stream.steps_per_epoch:.4f}")
