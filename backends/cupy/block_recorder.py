"""Primitives that note down what one block is to do with a network.

The step of `gpunet.step`, the only one there is, is called once with a `Recorder` in place of primitives. Each
primitive notes the same formula as its kernel has (activations.cuh, output.cuh, training.cuh), over memory on the chip
(block.cuh). All that is known by then, sizes above all, is a constant of the program.
"""

from __future__ import annotations

from typing import Any

from gpunet.activations import Activation, Identity, Maxout
from gpunet.losses import Loss
from gpunet.network import Architecture
from gpunet.optimizers import Optimizer, Slots
from gpunet.primitives import Primitives

from ..recording import UnrecordableError
from .block_layout import Layout, tiles
from .block_values import (
    Columns,
    Dropped,
    Flat,
    Gathered,
    Given,
    Namespace,
    Product,
    Scalar,
    Seen,
    Tape,
)
from .kernels import ELEMENTWISE, FROM_Z, OUTPUTS, RULES


class Recorder(Primitives):
    """Primitives that note down what they are to do.

    Parameters
    ----------
    tape : Tape
    theta : Flat
    """

    def __init__(self, tape: Tape, theta: Flat) -> None:
        super().__init__(Namespace(tape))
        self.tape = tape
        self._gradient = Flat(tape, "gradient", theta.shape)
        self._on_chip: dict[int, Columns] = {}

    def gather(self, columns: Any, examples: Any) -> Gathered:
        """Return what stands for a minibatch: it is read where it is needed."""
        if not isinstance(columns, Given) or columns.kind != "Real":
            raise UnrecordableError("examples of another kind")
        return Gathered(columns, (*columns.shape[:-1], *examples.shape))

    def gather_weights(self, weights: Any, examples: Any) -> Gathered:
        """Return what stands for a minibatch's weights."""
        return self.gather(weights, examples)

    def activate(self, z: Any, bias: Any, activation: Activation) -> tuple[Any, Any]:
        """Note down a product and, number by number as they come, the bias and g."""
        kind, tape = type(activation), self.tape
        if isinstance(activation, Maxout) and kind is Maxout:
            return self._activate_maxout(z, bias, activation.pieces)
        if kind not in ELEMENTWISE:
            raise UnrecordableError(activation.name)
        a = tape.columns(*z.shape)
        below = tape.columns(*z.shape) if kind in FROM_Z else a
        settings = self._settings(activation)
        lines = [f"const Real z = sum + {bias.name}[{bias.start} + i];"]
        lines += [f"{below.at('i', 'j')} = z;"] if below is not a else []
        lines += [f"{a.at('i', 'j')} = {kind.__name__}::g(z, {settings});"]
        self._multiply(z, lines)
        return below, a

    def pull_back(self, delta: Any, z: Any, a: Any, activation: Activation) -> Any:
        """Note down Θᵀ δ and, number by number, its factors: δ takes a's place."""
        kind, at = type(activation), a.at("i", "j")
        if isinstance(activation, Maxout):
            return self._pull_back_maxout(delta, z, a, activation.pieces)
        factor = f"{kind.__name__}::g_prime({z.at('i', 'j')}, {at}, {self._settings(activation)})"
        self._multiply(delta, [f"{at} = sum;" if kind is Identity else f"{at} = sum * {factor};"])
        return a

    def _activate_maxout(self, z: Product, bias: Seen, pieces: int) -> tuple[Columns, Columns]:
        """Note down z + b, then the largest of each unit's pieces, which lie ``apart``."""
        (rows, m), tape = z.shape, self.tape
        below, a = tape.columns(rows, m), tape.columns(rows // pieces, m)
        self._multiply(z, [f"{below.at('i', 'j')} = sum + {bias.name}[{bias.start} + i];"])
        first, apart = f"&{below.at('i', 'j')}", f"{a.shape[0]} * APART"
        self._each(
            a.shape[0],
            f"const Real *first = {first}; "
            f"{a.at('i', 'j')} = first[winner(first, {pieces}, {apart}) * ({apart})];",
        )
        return below, a

    def _pull_back_maxout(self, delta: Product, z: Columns, a: Columns, pieces: int) -> Columns:
        """Note down Θᵀ δ in a's place; the pieces that won get it, in z's place."""
        self._multiply(delta, [f"{a.at('i', 'j')} = sum;"])
        apart = f"{a.shape[0]} * APART"
        self._each(
            a.shape[0],
            f"Real *first = &{z.at('i', 'j')}; const int best = winner(first, {pieces}, {apart}); "
            f"for (int piece = 0; piece < {pieces}; ++piece) "
            f"first[piece * ({apart})] = {a.at('i', 'j')} * Real(piece == best);",
        )
        return z

    def output(  # noqa: PLR0917  # as in the reference
        self,
        z: Any,
        bias: Any,
        activation: Activation,
        loss: Loss,
        y: Any,
        weights: Any,
        total: float | None = None,
    ) -> tuple[Any, Any]:
        """Note down the cost and δ⁽ᴸ⁾ of a canonical pair."""
        if OUTPUTS.get(type(loss)) is not type(activation) or y.shape != z.shape:
            raise UnrecordableError(loss.name)
        tape, (units, m) = self.tape, z.shape
        delta = tape.columns(units, m)
        at = delta.at("i", "j")
        self._multiply(z, [f"{at} = more ? {at} + sum : sum;"], shared=True)
        share = tape.code(1.0 / (m if total is None else total))
        if weights is not None:
            W = total if total is not None else self._sum_or_1(weights)
            share = f"{tape.of_example(weights.of, 'start + j')} / {tape.code(W)}"
        tape.note("before", "Real costs = 0;")
        tape.note(
            "columns",
            f"costs += output_of<{type(loss).__name__}>({delta.name}, {bias.name} + {bias.start}, {y.of.name}, "
            f"{y.of.apart('unit')}, {y.of.apart('example')}, {units}, columns, APART, shared, "
            f"[&](int j) {{ return {self.tape.example('start + j')}; }}, [&](int j) {{ return {share}; }});",
            meet=True,
        )
        return tape.scalar("over_block(costs, shared)", late=True), delta

    def drop(self, a: Any, key: Any, layer: int, rate: Any) -> tuple[Any, Any]:
        """Note down that a share of a is dropped; return the rest and the factor."""
        tape, into, kept = self.tape, self.tape.columns(*a.shape), self.tape.name("kept")
        if isinstance(rate, Given):
            share = rate.at()
            factor = f"(unsigned)(Long)({share} * 4294967296.0), Real(1.0 / (1.0 - {share}))"
        else:
            factor = f"{int(rate * 2**32)}u, {tape.code(1.0 / (1.0 - rate))}"
        salt = layer * 0x27D4EB2F & 0xFFFFFFFF
        mixed = f"hashed((unsigned){key.at()} + {salt}u)"
        tape.note("before", f"const Kept<Real> {kept} = {{{mixed}, {factor}}};")
        rows, m = a.shape
        factor = f"{kept}(i * {m} + start + j)"
        self._each(rows, f"{into.at('i', 'j')} = {a.at('i', 'j')} * {factor};")
        return into, Dropped(kept)

    def split(self, architecture: Architecture, theta: Any) -> list[tuple[Any, Any]]:
        """Return each layer's Θ and bias, seen in θ or in the gradient."""
        parts, at, bias_at = [], 0, architecture.n_weights
        for layer in architecture.layers:
            Theta = theta.seen(at, layer.rows, layer.inputs)
            parts.append((Theta, theta.seen(bias_at, layer.rows, 1)))
            at, bias_at = at + layer.rows * layer.inputs, bias_at + layer.rows
        return parts

    def layer_gradient(
        self, architecture: Architecture, l: int, delta: Any, a: Any
    ) -> tuple[Any, Any]:
        """Note down δ aᵀ and Σ_i δ_i, added to what earlier columns gave."""
        a, (rows, m) = self._placed(a), delta.shape
        D, D_bias = self.split(architecture, self._gradient)[l]
        add = "at = start || more ? at + sum : sum;"
        where, down, right = a.matrix()
        self._product(
            (rows, a.shape[0]), None, (*delta.matrix(), where, right, down),
            [f"Real &at = {D.name}[{D.start} + i * {D.apart} + j];", add], shared=True,
        )  # fmt: skip
        self.tape.multiplications += rows * a.shape[0] * m
        self.tape.note(
            "columns",
            f"row_sums({delta.name}, {rows}, columns, APART, [&](int i, Real sum) "
            f"{{ const bool more = false; Real &at = {D_bias.name}[{D_bias.start} + i]; {add} }});",
            meet=True,
        )
        return D, D_bias

    def unroll(self, architecture: Architecture, layers: Any) -> Any:
        """Return the flat gradient, which holds the layers already."""
        return self._gradient

    def half_square(self, weights: Any) -> Any:
        """Note down ½ Σ Θ²."""
        return self.xp.sum(weights * weights, axis=-1) * 0.5

    def decay(self, gradient: Any, theta: Any, factor: Any, n_weights: int) -> Any:
        """Note down that λ's part is added."""
        code = self.tape.code(factor)
        self.tape.note("after", f"EACH_OF_BLOCK(p, {n_weights}) gradient[p] += {code} * theta[p];")
        return gradient

    def update(
        self, optimizer: Optimizer, theta: Any, gradient: Any, slots: Slots, *rates: Any
    ) -> tuple[Any, Slots]:
        """Note down the optimizer's step."""
        rule = RULES.get(type(optimizer))
        if rule is None:
            raise UnrecordableError(optimizer.name)
        numbers = [self._number(getattr(optimizer, name)) for name in rule]
        names = [*(slot.name for slot in slots), *("(Real *)0",) * (2 - len(slots))]
        codes = [*map(self.tape.code, rates), *("Real(0)",) * (2 - len(rates))]
        numbers += ["Number<Real>{}"] * (3 - len(numbers))
        arguments = ", ".join(["theta", "gradient", *names, *codes, *numbers])
        line = f"update_all<{type(optimizer).__name__}>({arguments}, {theta.shape[0]});"
        self.tape.note("after", line, meet=True)
        return theta, slots

    def _number(self, value: Any) -> str:
        """Return the expression for a rule's number and 1 − number, rounded as the reference rounds them."""
        code = self.tape.code(value)
        rest = f"Real(1) - {code}" if isinstance(value, Scalar) else self.tape.code(1.0 - value)
        return f"Number<Real>{{{code}, {rest}}}"

    def _settings(self, activation: Activation) -> str:
        """Return the expressions for an activation's setting and 1 − setting."""
        name = ELEMENTWISE[type(activation)]
        value = 0.0 if name is None else getattr(activation, name)
        return f"{self.tape.code(value)}, {self.tape.code(1.0 - value)}"

    def _sum_or_1(self, weights: Gathered) -> Scalar:
        """Return the weights' sum, 1 where all are 0."""
        W = self.xp.sum(weights, axis=-1)
        return self.xp.where(W > 0.0, W, self.xp.ones_like(W))  # type: ignore[no-any-return]

    def _placed(self, a: Any) -> Columns:
        """Return a matrix on the chip; the examples are brought there when they are first needed."""
        if not isinstance(a, Gathered):
            return a  # type: ignore[no-any-return]
        if id(a) not in self._on_chip:
            made = self._on_chip[id(a)] = self.tape.columns(*a.shape)
            self.tape.note(
                "columns",
                f"gather({a.of.name}, {a.of.apart('unit')}, {a.of.apart('example')}, {made.name}, {a.shape[0]}, "
                f"columns, APART, [&](int j) {{ return {self.tape.example('start + j')}; }});",
                meet=True,
            )
        return self._on_chip[id(a)]

    def _each(self, rows: int, line: str) -> None:
        """Note down what to do for each of the rows i and columns j."""
        loop = f"EACH_OF_BLOCK(n, {rows} * columns)"
        body = f"{{ const int i = n / columns, j = n % columns; {line} }}"
        self.tape.note("columns", f"{loop} {body}", meet=True)

    def _multiply(self, product: Product, lines: list[str], *, shared: bool = False) -> None:
        """Note down Θ a or Θᵀ δ; ``lines`` take number ``sum`` in row i and column j.

        Where the inner sum may be ``shared``, they may get a part of it, and then ``more`` of it.
        """
        if not isinstance(product, Product):
            raise UnrecordableError("what isn't a product")
        right = self._placed(product.right)
        lines = [
            *(f"sum *= {kept}(i * {right.shape[1]} + start + j);" for kept in product.kept),
            *lines,
        ]
        (rows, inner), m = product.left.shape, right.shape[1]
        operands = *product.left.matrix(), *right.matrix()
        self._product((rows, None), inner, operands, lines, shared=shared)
        self.tape.note("columns", "__syncthreads();")
        self.tape.multiplications += rows * inner * m

    def _product(
        self,
        shape: tuple[int, int | None],
        inner: int | None,
        operands: tuple[str, ...],
        lines: list[str],
        *,
        shared: bool,
    ) -> None:
        """Note down a product of some sizes, None for as many columns as are on the chip at a time."""

        def line(layout: Layout) -> str:
            rows, columns, terms = shape[0], shape[1] or layout.part, inner or layout.part
            tile = tiles(rows, columns, terms, layout.threads, self.tape.char, shared=shared)
            return (
                f"product<{', '.join(map(str, (rows, columns, *tile)))}>({', '.join(operands)}, {inner or 'columns'}, "
                f"[&](int i, int j, Real sum, bool more) {{ {' '.join(lines)} }});"
            )

        self.tape.note("columns", line)
        self.tape.largest = max(
            self.tape.largest, shape[0] * (shape[1] or self.tape.examples.shape[0])
        )
