"""A mask from an ONNX file of `unet export`, without Keras: onnx_predict.py MODEL IMAGE MASK.

The mask is as large as the image: ids of classes, or 0 and 255 for a model of one channel.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model, photo, to = sys.argv[1:]
session = onnxruntime.InferenceSession(model)
takes = json.loads(session.get_modelmeta().custom_metadata_map["unet"])["input"]
image = ImageOps.exif_transpose(Image.open(photo))
if image.mode[0] in "IF" or any(takes["scalings"].values()):
    sys.exit(f"{photo}: its levels are not of 8 bits as the model knows them; see `scalings`.")
image, longest = image.convert("RGB"), takes["record_size"]
size = takes["size"] or (longest if isinstance(longest, list) else None)
share = min(longest / max(image.size), 1) if isinstance(longest, int) else 1
height, width = size or [max(1, round(side * share)) for side in image.size[::-1]]
is_smaller = height * width < image.height * image.width
how = Image.Resampling.BOX if is_smaller else Image.Resampling.BILINEAR
seen, least = np.asarray(image.resize((width, height), how)), takes["least"]
beyond = [max(-side % takes["multiple_of"], least - side) for side in (height, width)]
seen = np.pad(seen, [*((0, more) for more in beyond), (0, 0)], mode="symmetric")
mask, probability = session.run(["mask", "probability"], {"image": seen[None]})
found = mask[0, :height, :width] * np.uint8(255 if probability.shape[-1] == 1 else 1)
Image.fromarray(found).resize(image.size, Image.Resampling.NEAREST).save(to)
