"""Records, plans and host kernels: everything from a packed file to a batch, without a framework.

NumPy and Numba alone; nothing here imports another part of segdata.
"""
