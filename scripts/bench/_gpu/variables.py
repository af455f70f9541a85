"""What the environment says, and what it isn't to say while something is measured."""

import os

CLEARED = (
    "XLA_FLAGS", "GPUNET_BACKEND", "GPUNET_GRAPHS", "GPUNET_ON_CHIP", "GPUNET_PRODUCTS", "GPUNET_RESIDENT",
    "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "CUPY_TF32", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip
"""Variables by which one contestant would compute otherwise than the others, or than by default."""


def cleared():
    """Return the environment without them."""
    return {key: value for key, value in os.environ.items() if key not in CLEARED}
