"""`Network`: a neural network as an object, its parameters on a backend, examples as rows."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from os import PathLike
from typing import Any, ParamSpec, TypeVar

from gpunet import description, initializers, optimizers, schedules
from gpunet.activations import Activation
from gpunet.backend import Backend, backend_of, get_backend
from gpunet.examples import Border, matrices
from gpunet.fitting import fit, report
from gpunet.gradient_check import LayerCheck, check_gradient
from gpunet.initializers import Initializer
from gpunet.losses import Loss
from gpunet.memory import explained, hypothesis_within, mebibytes, step_bytes
from gpunet.network import (
    Architecture,
    cost,
    cost_and_gradient,
    gradient_by_example,
    propagate,
)
from gpunet.optimizers import LBFGS, Optimizer
from gpunet.runs import Callback, Record
from gpunet.schedules import Schedule
from gpunet.scores import decide, score
from gpunet.training import TrainingState
from gpunet.typing import Array

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Propagation:
    """Everything forward propagation computes, by the lecture's layer numbers.

    Attributes
    ----------
    h : array of shape (m, K)
        The hypothesis a⁽ᴸ⁾.
    z : dict of int to array of shape (m, rows)
        ``z[l]`` for l = 2, ..., L.
    a : dict of int to array of shape (m, s_l)
        ``a[l]`` for l = 1, ..., L; ``a[1]`` is X.
    """

    h: Array
    z: dict[int, Array]
    a: dict[int, Array]


def _on_device(method: Callable[P, R]) -> Callable[P, R]:
    """Run a method of `Network` in its backend's context."""

    @functools.wraps(method)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with args[0].backend.active():  # type: ignore[attr-defined]
            return method(*args, **kwargs)

    return run


class Network:
    """A fully connected neural network: its description, with parameters on a backend.

    Examples are rows here, as everywhere in Python: X is (m, s_1) and Y is (m, K). Results are NumPy arrays for
    host data, and stay where they are for arrays of the network's own backend.

    Parameters
    ----------
    sizes : sequence of int
        Units of each layer, s_1 to s_L, the bias not counted. Without a hidden layer it is a logistic (or linear)
        regression.
    hidden : str, Activation or a sequence of them
        The hidden layers' activation: one for all, or one for each (see `gpunet.activations.get`).
    output : str or Activation, optional
        The output's activation; None takes the loss's canonical one.
    loss : str or Loss
        ``"cross_entropy"`` (K logistic outputs, the notes'), ``"softmax_cross_entropy"``,
        ``"squared_error"`` (1/2m) or ``"mean_squared_error"`` (1/m).
    task : {"binary", "multiclass", "multilabel", "regression"}, optional
        What the outputs mean to `predict` and `score`. None: regression for a squared error; else binary for one output
        and multiclass (one-hot) for more.
    init : str or Initializer
        How the parameters start: ``"zeros"``, ``"uniform"``, ``"normal"``, ``"xavier"``, ``"xavier_normal"``, ``"he"``.
    seed : int, RandomState or None
        For the initial parameters, and for the shuffles of a `fit` without a seed of its own.
    dtype : {"float64", "float32"}
        Of the parameters; data is converted to it.
    backend : str or Backend, optional
        Where to compute; see `gpunet.get_backend`.
    device : str, optional
        The backend's device.

    Attributes
    ----------
    architecture : Architecture
        The immutable description.
    theta : array of shape (P,)
        The flat parameter vector on the device.
    history : list of dict
        One record an epoch: epoch, cost, score, validation_cost, validation_score, learning_rate, seconds.

    Raises
    ------
    ValueError
        For names that aren't known and parts that don't fit each other.

    Examples
    --------
    >>> import gpunet
    >>> X, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
    >>> xor = gpunet.Network([2, 4, 1], hidden="tanh", seed=1, backend="numpy")
    >>> xor.fit(X, y, optimizer="lbfgs").predict(X).tolist()
    [0, 1, 1, 0]
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        hidden: str | Activation | Sequence[str | Activation] = "sigmoid",
        output: str | Activation | None = None,
        loss: str | Loss = "cross_entropy",
        task: str | None = None,
        init: str | Initializer = "xavier",
        seed: Any = None,
        dtype: str = "float64",
        backend: str | Backend | None = None,
        device: str | None = None,
    ) -> None:
        from sklearn.utils import check_random_state  # slow to import

        architecture = description.architecture_of(sizes, hidden, output, loss)
        self._describe(architecture, task, dtype, get_backend(backend, device))
        self._random = check_random_state(seed)
        initializer = initializers.get(init)
        drawn = [
            initializer(self._random, layer.inputs, layer.units, layer.rows)
            for layer in self.architecture.layers
        ]
        self._set_layers(drawn)

    def _describe(
        self, architecture: Architecture, task: str | None, dtype: str, backend: Backend
    ) -> None:
        """Set everything but the parameters."""
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype is 'float32' or 'float64', not {dtype!r}.")
        self.architecture = architecture
        self.task = description.task_of(architecture, task)
        self.dtype = dtype
        self.backend = backend
        self.history: list[Record] = []

    @classmethod
    def from_thetas(
        cls,
        thetas: Sequence[Any],
        *,
        hidden: str | Activation | Sequence[str | Activation] = "sigmoid",
        output: str | Activation | None = None,
        loss: str | Loss = "cross_entropy",
        task: str | None = None,
        seed: Any = None,
        dtype: str | None = None,
        backend: str | Backend | None = None,
        device: str | None = None,
    ) -> Network:
        """Make a network from the notes' weight matrices.

        Parameters
        ----------
        thetas : sequence of array of shape (s_{l+1}, s_l + 1)
            Θ⁽¹⁾ to Θ⁽ᴸ⁻¹⁾, the bias in column 0. A maxout layer of k pieces has k·s_{l+1} rows.
        dtype : str, optional
            None takes float32 if all of them are, else float64.
        hidden, output, loss, task, seed, backend, device
            As for `Network`. Matrices that live on a device already stay there.

        Raises
        ------
        ValueError
            For matrices that don't chain, in the notes' terms.

        Examples
        --------
        >>> import gpunet
        >>> AND = gpunet.Network.from_thetas([[[-30, 20, 20]]], backend="numpy")
        >>> AND.predict([[0, 0], [0, 1], [1, 0], [1, 1]]).tolist()
        [0, 0, 0, 1]
        """
        from sklearn.utils import check_random_state

        owner = backend_of(thetas) if backend is None and device is None else None
        chosen = owner or get_backend(backend, device)
        thetas, dtype = matrices(thetas, chosen, dtype)
        sizes = description.sizes_of(thetas, hidden, output)
        architecture = description.architecture_of(sizes, hidden, output, loss)
        network = cls.__new__(cls)
        network._describe(architecture, task, dtype, chosen)
        network._random = check_random_state(seed)
        with chosen.active():
            network._set_layers([(Theta[:, 1:], Theta[:, 0]) for Theta in thetas])
        return network

    def _set_layers(self, layers: Sequence[tuple[Any, Any]]) -> None:
        """Set the parameters from each layer's Θ and bias, on the host or the device."""
        with self.backend.active():
            parts = [
                (self.backend.asarray(Theta, self.dtype), self.backend.asarray(bias, self.dtype))
                for Theta, bias in layers
            ]
            self.theta = self.architecture.unroll(self.backend.xp, parts)

    @property
    def _border(self) -> Border:
        return Border(self.architecture, self.task, self.backend, self.dtype)

    @property
    def thetas(self) -> list[Any]:
        """Θ⁽¹⁾ to Θ⁽ᴸ⁻¹⁾ in the notes' shape (s_{l+1}, s_l + 1), bias in column 0; NumPy arrays.

        May be set, to matrices of the same shapes.
        """
        with self.backend.active():
            packed = self._pack(self.architecture.split(self.backend.xp, self.theta))
            return [self.backend.to_host(Theta) for Theta in packed]

    @thetas.setter
    def thetas(self, thetas: Sequence[Any]) -> None:
        checked, _ = matrices(thetas, self.backend, self.dtype)
        expected = [(layer.rows, layer.inputs + 1) for layer in self.architecture.layers]
        given = [tuple(Theta.shape) for Theta in checked]
        if given != expected:
            raise ValueError(
                f"The network {list(self.architecture.sizes)} has matrices of the shapes {expected}, but those given "
                f"have {given}."
            )
        with self.backend.active():
            self._set_layers([(Theta[:, 1:], Theta[:, 0]) for Theta in checked])

    def _pack(self, layers: Sequence[tuple[Array, Array]]) -> list[Array]:
        """Return each layer's matrix with the bias in column 0."""
        xp = self.backend.xp
        return [xp.concat([bias[:, None], Theta], axis=1) for Theta, bias in layers]

    @_on_device
    def forward(self, X: Any, *, every_layer: bool = False) -> Any:
        """Propagate forward: h_Θ(x) of every example.

        Parameters
        ----------
        X : array-like of shape (m, s_1)
        every_layer : bool
            Return every z⁽ˡ⁾ and a⁽ˡ⁾ as well, as a `Propagation`.

        Returns
        -------
        array of shape (m, K), or Propagation
        """
        border, host = self._border, self._border.is_host(X)
        x, xp = border.columns(X, in_parts=not every_layer), self.backend.xp

        def leave(columns: Array) -> Any:
            return border.leave(xp.matrix_transpose(columns), host)

        if not every_layer:
            return leave(self._hypothesis(x))
        z, a = {}, {1: leave(x)}
        states = propagate(self.architecture, self.theta, x, self.backend.primitives)
        for l, (z_l, a_l) in enumerate(states, start=2):
            z[l], a[l] = leave(z_l), leave(a_l)
        return Propagation(a[len(a)], z, a)

    def _hypothesis(self, x: Array) -> Array:
        """Return h_Θ(x) (K, m) of x (s_1, m)."""
        return hypothesis_within(self.backend, self.architecture, self.theta, x)[1]

    def _enter(
        self, X: Any, Y: Any, l2: float, sample_weight: Any, *, in_parts: bool = False
    ) -> tuple[bool, Any]:
        """Return whether the data is on the host, and x, y, weights, λ on the device: see `Border.columns`."""
        border = self._border
        host = border.is_host(X, Y, sample_weight)
        if not (isinstance(l2, numbers.Real) and 0.0 <= l2 < math.inf):
            raise ValueError(f"λ (l2) has to be a finite number >= 0, but is {l2!r}.")
        x = border.columns(X, in_parts=in_parts)
        y = border.targets(Y, x.shape[-1])
        weights = border.sample_weight(sample_weight, x.shape[-1])
        return host, (x, y, weights, float(l2) if l2 else None)

    def _at_once(self, x: Array) -> AbstractContextManager[None]:
        """Return a context in which an error about memory tells what all of the examples x (s_1, m) take."""

        def too_large() -> str:
            width, m = int(self.dtype.removeprefix("float")) // 8, x.shape[-1]
            return (
                f"{m:,} examples at once through the layers {list(self.architecture.sizes)} take about "
                f"{mebibytes(step_bytes(self.architecture, m, 0, width))}, which doesn't fit the memory of "
                f"{self.backend.spec}. Give fewer examples at a time."
            )

        return explained(self.backend, too_large)

    @_on_device
    def cost(self, X: Any, Y: Any, *, l2: float = 0.0, sample_weight: Any = None) -> Any:
        """Return J(Θ) = 1/m Σ_i cost_i + λ/(2m) Σ Θ², the bias not regularised.

        Parameters
        ----------
        X : array-like of shape (m, s_1)
        Y : array-like of shape (m, K)
            Or (m,) for one output, or for class numbers 0 to K − 1 of a multiclass network.
        l2 : float
            λ.
        sample_weight : array-like of shape (m,), optional
            w_i: costs are weighted and m is their sum.

        Returns
        -------
        float
            A 0-d array on the device for data that lives there.
        """
        host, (x, y, weights, l2_) = self._enter(X, Y, l2, sample_weight, in_parts=True)
        with self._at_once(x):
            J = cost(
                self.architecture,
                self.theta,
                x,
                y,
                self.backend.primitives,
                l2=l2_,
                weights=weights,
            )
        return float(self.backend.to_host(J)) if host else J

    @_on_device
    def gradient(self, X: Any, Y: Any, *, l2: float = 0.0, sample_weight: Any = None) -> list[Any]:
        """Return ∂J/∂Θ⁽ˡ⁾ = D⁽ˡ⁾ in Θ⁽ˡ⁾'s shape, by backpropagation. Parameters as for `cost`."""
        host, (x, y, weights, l2_) = self._enter(X, Y, l2, sample_weight)
        with self._at_once(x):
            _, gradient = cost_and_gradient(
                self.architecture,
                self.theta,
                x,
                y,
                self.backend.primitives,
                l2=l2_,
                weights=weights,
            )
        layers = self.architecture.split(self.backend.xp, gradient)
        return [self._border.leave(D, host) for D in self._pack(layers)]

    @_on_device
    def gradient_by_example(self, X: Any, Y: Any, *, l2: float = 0.0) -> list[Any]:
        """Return the same as `gradient` by the notes' loop over the examples: slow, to be read."""
        host, (x, y, _, _) = self._enter(X, Y, l2, None)
        layers = gradient_by_example(
            self.architecture, self.theta, x, y, self.backend.primitives, l2=l2
        )
        return [self._border.leave(D, host) for D in self._pack(layers)]

    def check_gradient(
        self,
        X: Any,
        Y: Any,
        *,
        l2: float = 0.0,
        sample_weight: Any = None,
        sample: int | None = None,
    ) -> list[LayerCheck]:
        """Compare backpropagation with numerical differentiation, in double precision.

        Parameters
        ----------
        X, Y, l2, sample_weight
            As for `cost`.
        sample : int, optional
            Check this many parameters, drawn at random, instead of all: for large networks.

        Returns
        -------
        list of LayerCheck
            For each Θ⁽ˡ⁾ the largest relative difference and where it is.

        Examples
        --------
        >>> import gpunet
        >>> network = gpunet.Network([2, 3, 2], seed=0, backend="numpy")
        >>> for check in network.check_gradient([[1.0, 2.0], [0.5, -1.0]], [0, 1], l2=1.0):
        ...     print(check.layer, check.compared, check.difference < 1e-6)
        1 9 True
        2 8 True
        """
        from sklearn.utils import check_random_state

        double = self._converted("float64")
        with self.backend.active():
            _, (x, y, weights, l2_) = double._enter(X, Y, l2, sample_weight)
            P = self.architecture.n_parameters
            chosen = None
            if sample is not None and sample < P:
                chosen = check_random_state(0).permutation(P)[:sample].tolist()
            return check_gradient(
                self.architecture,
                double.theta,
                x,
                y,
                self.backend,
                l2=l2_,
                weights=weights,
                parameters=chosen,
            )

    def _converted(self, dtype: str) -> Network:
        """Return a copy with parameters of another dtype."""
        copy = Network.__new__(Network)
        copy.__dict__.update(self.__dict__, dtype=dtype)
        with self.backend.active():
            copy.theta = self.backend.xp.astype(
                self.theta, getattr(self.backend.xp, dtype), copy=True
            )
        return copy

    @_on_device
    def fit(
        self,
        X: Any,
        Y: Any,
        *,
        optimizer: str | Optimizer | LBFGS = "adam",
        learning_rate: float | None = None,
        schedule: str | Schedule = "constant",
        epochs: int = 200,
        batch_size: int | None = 200,
        l2: float = 0.0,
        sample_weight: Any = None,
        shuffle: bool = True,
        dropout: float | Sequence[float] = 0.0,
        clip_norm: float | None = None,
        validation: float | tuple[Any, Any] | None = None,
        patience: int | None = None,
        tolerance: float = 1e-4,
        seed: Any = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = False,
    ) -> Network:
        """Train from the present parameters on.

        What is minimised is `cost` over the examples to train on, whatever the batch size: λ is divided by their number
        m, not by that of a minibatch. L-BFGS takes all examples at once and needs neither batches nor schedule.

        Parameters
        ----------
        X, Y, l2, sample_weight
            As for `cost`.
        optimizer : str, Optimizer or LBFGS
            ``"gradient_descent"``, ``"momentum"``, ``"nesterov"``, ``"adam"`` or ``"lbfgs"``.
        learning_rate : float, optional
            None takes the optimizer's own default.
        schedule : str or Schedule
            ``"constant"``, ``"inverse_scaling"`` or ``"cosine"``.
        epochs : int
            How often all examples are seen; for L-BFGS, its iterations.
        batch_size : int or None
            Examples a step, at most m; None takes all of them (batch gradient descent).
        shuffle : bool
            Whether each epoch sees the examples in a new order.
        dropout : float or sequence of float
            The share of hidden units that each step leaves out: one for all hidden layers, or one for each.
        clip_norm : float, optional
            The length that a step's gradient may have.
        validation : float, pair (X, Y) or None
            A share of the examples to set aside (stratified for classes), or data of your own. With it, the parameters
            of the epoch with the best validation score are kept.
        patience : int, optional
            Stop when the validation score hasn't grown by ``tolerance`` for more epochs than this.
        tolerance : float
        seed : int, RandomState or None
            For split and shuffles; None goes on with the network's own generator.
        callbacks : sequence of callable
            Each is called with every epoch's record; returning True ends the training.
        progress : bool
            Show a progress bar.

        Returns
        -------
        Network
            Itself, with `history`.

        Raises
        ------
        ValueError
            For data and settings that don't fit.
        OutOfMemoryError
            If the device's memory is short even for what can't be made smaller.
        DivergenceError
            If the cost was no longer finite. The last finite parameters are kept.

        Warns
        -----
        TrainingInterruptedWarning
            After Ctrl-C, which ends training after the step in hand; the best parameters so far are kept.
        """
        from sklearn.utils import check_random_state

        _, data = self._enter(X, Y, l2, sample_weight, in_parts=True)
        random = self._random if seed is None else check_random_state(seed)
        result = fit(
            self._border,
            TrainingState(self.backend.xp.asarray(self.theta, copy=True), random),
            data,
            optimizer=optimizers.get(optimizer, learning_rate),
            schedule=schedules.get(schedule),
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            dropout=dropout,
            clip_norm=clip_norm,
            validation=validation,
            patience=patience,
            tolerance=tolerance,
            callbacks=callbacks,
            progress=progress,
        )
        self.theta, self.history, self._random = result.theta, result.history, random
        report(result)
        return self

    @_on_device
    def predict(self, X: Any) -> Any:
        """Return what the network decides for every example.

        Returns
        -------
        array
            binary: 0 or 1, shape (m,). multiclass: the class number, shape (m,). multilabel: 0 or 1, and regression: h;
            shape (m, K), or (m,) for one output.
        """
        border, host, xp = self._border, self._border.is_host(X), self.backend.xp
        decided = decide(xp, self.task, self._hypothesis(border.columns(X, in_parts=True)))
        if decided.ndim == 2:
            decided = decided[0, :] if decided.shape[0] == 1 else xp.matrix_transpose(decided)
        if self.task in ("binary", "multilabel"):
            decided = xp.astype(decided, xp.int64)
        return border.leave(decided, host)

    @_on_device
    def score(self, X: Any, Y: Any, *, sample_weight: Any = None) -> Any:
        """Return the share of right decisions, or R² for a regression. Parameters as for `cost`."""
        host, (x, y, weights, _) = self._enter(X, Y, 0.0, sample_weight, in_parts=True)
        value = score(self.backend.xp, self.task, self._hypothesis(x), y, weights)
        return float(self.backend.to_host(value)) if host else value

    def save(self, path: str | PathLike[str]) -> None:
        """Save description and parameters to one file without code: see `gpunet.persistence`."""
        from gpunet.persistence import save

        save(path, self)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        custom: Mapping[str, Activation] | None = None,
        backend: str | Backend | None = None,
        device: str | None = None,
    ) -> Network:
        """Load a saved network, on any machine and backend.

        ``custom`` gives the activations of one's own by name: a file never holds code.
        """
        from gpunet.persistence import load

        saved = load(path, custom=custom, backend=backend, device=device)
        return saved.network

    def summary(self) -> str:
        """Return a table of the layers, their shapes and numbers of parameters."""
        table = description.table_of(self.architecture)
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        total = (
            f"{self.architecture.n_parameters:,} parameters, {self.dtype} on {self.backend.spec}"
        )
        return "\n".join([*lines, f"{total}; loss {self.architecture.loss.name}, {self.task}"])

    def __repr__(self) -> str:
        kinds = ", ".join(description.spec_of(kind) for kind in self.architecture.activations)
        return (
            f"Network({list(self.architecture.sizes)}: {kinds}; {self.architecture.loss.name}, "
            f"{self.dtype} on {self.backend.spec})"
        )
