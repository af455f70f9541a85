"""NumPy whose products see rounded operands, as a GPU's tensor cores do."""

import array_api_compat.numpy as numpy_xp
import numpy as np
from gpunet.backends.cupy.products import Capturable
from gpunet.backends.numpy import NumPyBackend

from gpunet.backend import Backend
from gpunet.primitives import Primitives

BITS = {"float32": 23, "tf32": 10, "bfloat16": 7, "float16": "half"}
"""How many of float32's bits an operand keeps, by `GPUNET_PRODUCTS`'s names; or float16's range and bits."""


class Rounding(NumPyBackend):
    """NumPy, every product's operands rounded.

    Parameters
    ----------
    name : str
        Of `BITS`.
    """

    def __init__(self, name):
        super().__init__()
        self.bits, self.xp = BITS[name], Capturable(numpy_xp, np, self)
        self.primitives = Primitives(self.xp)

    compile = Backend.compile

    def matmul(self, left, right):
        """Return left @ right."""
        return np.matmul(self.rounded(left), self.rounded(right))

    def rounded(self, array):
        """Return numbers rounded to the nearest, ties to even."""
        if self.bits == "half":
            with np.errstate(over="ignore"):
                return array.astype(np.float16).astype(np.float32)
        dropped = 23 - self.bits
        if dropped == 0:
            return array
        bits = np.ascontiguousarray(array).view(np.uint32)
        half = np.uint32(2 ** (dropped - 1) - 1) + ((bits >> dropped) & 1)
        return ((bits + half) >> dropped << dropped).view(np.float32)

    def scales_losses(self, dtype):
        """Return whether losses are scaled, as float16's range asks for."""
        return self.bits == "half"
