"""What the core needs of Python, the disk and the processor."""
