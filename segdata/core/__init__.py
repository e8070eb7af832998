"""Records, plans and host kernels: everything from a packed file to a batch, without a framework.

NumPy and Numba alone; nothing here imports another part of segdata.
"""

IGNORE_LABEL = 255
"""The class id of a mask's pixels that have no label; losses and scores leave them out."""
