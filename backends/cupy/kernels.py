"""The CUDA program: its text, the names of its kernels, and how CuPy launches one.

Each kernel is a template over the number's type and what it computes. NVRTC compiles one when it is first needed (CuPy
keeps it on disk), without headers, for the device that is there.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from gpunet import activations, losses, optimizers
from gpunet.activations import Activation
from gpunet.losses import Loss
from gpunet.optimizers import Optimizer

FILES = ("common.cuh", "activations.cuh", "output.cuh", "layers.cuh", "training.cuh")
SOURCE = "\n".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in FILES)
OPTIONS = ("--std=c++17", "--fmad=false")
"""Without contraction a kernel rounds as often as the reference does: their numbers can be compared bit for bit.

CuPy adds options of its own, to its own kernels too: ``-ftz=true``, with which float32 has nothing between 0 and 2⁻¹²⁶.
"""

THREADS = 256
"""Of a block whose threads work together; the program has the same number."""

TILE = 16
"""Rows and columns of a product that a block takes; the program has the same number."""

TYPES = {"f": "float", "d": "double"}
"""The program's types by NumPy's character for a dtype."""

Launch = Callable[[str, tuple[int, int], tuple[int, int], tuple[Any, ...]], None]
"""``launch(name, grid, block, arguments)``: start a kernel, arrays going in as pointers."""

ELEMENTWISE: dict[type[Activation], str | None] = {
    activations.Identity: None,
    activations.Sigmoid: None,
    activations.Tanh: None,
    activations.ReLU: None,
    activations.LeakyReLU: "slope",
    activations.ELU: "alpha",
    activations.GELU: None,
    activations.SiLU: None,
    activations.Exponential: None,
}
"""Activations that work element by element, and the name of their one setting. A subclass isn't one of them."""

FROM_Z = (activations.LeakyReLU, activations.ELU, activations.GELU, activations.SiLU)
"""Activations of these whose g' needs z; that of all others is told from a, ReLU's too."""

OUTPUTS: dict[type[Loss], type[Activation]] = {
    losses.CrossEntropy: activations.Sigmoid,
    losses.ClippedCrossEntropy: activations.Sigmoid,
    losses.SoftmaxCrossEntropy: activations.Softmax,
    losses.ClippedSoftmaxCrossEntropy: activations.Softmax,
    losses.SquaredError: activations.Identity,
    losses.AveragedSquaredError: activations.Identity,
    losses.MeanSquaredError: activations.Identity,
}
"""Losses, each with the one output activation with which a kernel knows it."""

RULES: dict[type[Optimizer], tuple[str, ...]] = {
    optimizers.GradientDescent: (),
    optimizers.Momentum: ("momentum",),
    optimizers.Nesterov: ("momentum",),
    optimizers.Adam: ("beta_1", "beta_2", "epsilon"),
    optimizers.NAdam: ("beta_1", "beta_2", "epsilon"),
    optimizers.AdamW: ("beta_1", "beta_2", "epsilon"),
    optimizers.RMSProp: ("rho", "epsilon"),
}
"""Update rules and their numbers, first to third."""


def names() -> list[str]:
    """Return the name of every kernel there is, as a C++ expression."""
    elementwise = [kind.__name__ for kind in ELEMENTWISE]
    templates = [
        "sums<{}, Itself>",
        "sums<{}, HalfSquare>",
        *(f"activate<{{}}, {kind}>" for kind in elementwise),
        *(f"pull_back<{{}}, {kind}>" for kind in elementwise if kind != "Identity"),
        *(
            f"{which}_{kind}<{{}}>"
            for which, kind in product(("activate", "pull_back"), ("maxout", "softmax"))
        ),
        *(f"pull_back_and_sum<{{}}, {kind}>" for kind in elementwise if kind != "Identity"),
        *(f"{which}<{{}}, {kind}>" for which in ("forward", "backward") for kind in elementwise),
        *(f"output<{{}}, {loss.__name__}>" for loss in OUTPUTS),
        *(f"output_layer<{{}}, {loss.__name__}>" for loss in OUTPUTS),
        "turn<{}>",
        "minibatch<{}>",
        "account<{}>",
        "drop<{}>",
        "decay<{}>",
        "rescale<{}>",
        *(f"update<{{}}, {rule.__name__}>" for rule in RULES),
    ]
    return [template.format(T) for T in TYPES.values() for template in templates]


class Kernels:
    """Launches kernels on CuPy's current device and stream, each compiled when it is first asked for."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._known: dict[str, Any] = {}

    def __call__(
        self, name: str, grid: tuple[int, int], block: tuple[int, int], arguments: tuple[Any, ...]
    ) -> None:
        """Start a kernel; doesn't wait."""
        kernel = self._known.get(name)
        if kernel is None:
            module = self._cupy.RawModule(code=SOURCE, options=OPTIONS, name_expressions=(name,))
            kernel = self._known[name] = module.get_function(name)
        kernel(grid, block, arguments)
