# The stubs that come with the type checker describe an older TensorFlow; this one claims nothing.
from typing import Any

Tensor = Any
TensorShape = Any

def __getattr__(name: str) -> Any: ...
