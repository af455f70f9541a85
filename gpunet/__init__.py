"""gpunet: neural networks written once in the Array API standard."""

from gpunet import activations, initializers, losses, optimizers, schedules
from gpunet.backend import (
    BackendUnavailableError,
    backends_info,
    get_backend,
    set_backend,
    use_backend,
)
