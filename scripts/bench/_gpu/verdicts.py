"""What is asked of gpunet on a GPU beside what was reached, and what the ceilings would allow."""

import math

from _gpu.contestants import PRODUCTS, REFERENCE
from _gpu.workloads import SINGLE, STACKS, bytes_of, workload_of

EAGER, SCIKIT = "torch", "scikit-learn"
FASTEST = ("torch.compile", "torch, graph", "JAX")
TORCH = ("torch", "torch.compile", "torch, graph")
PEERS = (EAGER, *FASTEST)
DIGITS = 1e-4
"""How far losses may lie apart, relative to gpunet's, after an epoch: four digits."""
STAYS = 2**25
"""Bytes of a step that are thought to stay in the second-level cache: 50 MB on an H100 and an H200."""
REACHED, MISSED, UNKNOWN = "reached", "missed", "not measured"


def taken(results, name, contestant):
    """Return a step's microseconds; None where there are none."""
    return results.get(name, {}).get(contestant, {}).get("microseconds")


def fastest(results, name, contestants):
    """Return the fastest of some contestants on a workload, and its microseconds; None where there is none."""
    known = {who: taken(results, name, who) for who in contestants}
    known = {who: time for who, time in known.items() if time is not None}
    if not known:
        return None
    best = min(known, key=known.get)
    return best, known[best]


def differences(results):
    """Return by workload how far losses lie from the first, relatively; infinite where one is no number."""
    found = {}
    for name, each in results.items():
        for key in ("loss", "last_loss"):
            losses = [answer[key] for answer in each.values() if key in answer]
            if len(losses) < 2:
                continue
            worst = max(abs(other / losses[0] - 1) for other in losses[1:])
            if not all(map(math.isfinite, losses)):
                worst = math.inf
            found[name] = max(found.get(name, 0.0), worst)
    return found


def verdicts(results):
    """Return rows of what was asked: words, the bound, what was reached, and the verdict."""
    rows = []

    def row(words, asked, reached, *, least=True, unit="x", note=""):
        bound = f"{'>=' if least else '<='} {asked:g}{unit}"
        if reached is None:
            rows.append((words, bound, "–", UNKNOWN))
            return
        good = reached >= asked if least else reached <= asked
        told = f"{reached:.3g}{unit}{f' ({note})' if note else ''}"
        rows.append((words, bound, told, REACHED if good else MISSED))

    def faster(words, asked, name, contestants):
        ours, best = taken(results, name, REFERENCE), fastest(results, name, contestants)
        known = ours is not None and best is not None
        row(words, asked, best[1] / ours if known else None, note=best[0] if known else "")

    faster("W1 against torch eager", 10, "W1", [EAGER])
    faster("W2 against torch eager", 6, "W2", [EAGER])
    for name in ("W1", "W2"):
        faster(f"{name} against compiled torch and JAX", 1.5, name, FASTEST)
    for name in ("W3", "4x8192"):
        faster(f"{name} against the fastest", 1, name, PEERS)
    for name in ("W3", "4x8192"):
        ours, bare = taken(results, name, REFERENCE), taken(results, name, PRODUCTS)
        known = ours is not None and bare is not None
        row(f"{name}, share of its matrix products", 85, 100 * bare / ours if known else None, unit=" %")  # fmt: skip
    faster("W1 against scikit-learn", 30, "W1", [SCIKIT])
    one, many = taken(results, "W1", REFERENCE), taken(results, "1000 of W1", REFERENCE)
    known = one is not None and many is not None
    networks = results.get("1000 of W1", {}).get(REFERENCE, {}).get("networks", 1)
    row("1000 of W1 against one after another", 50, one * networks / many if known else None)
    faster("1000 of W1 against torch's vmap", 2, "1000 of W1", TORCH)
    faster("1000 of W1 against JAX's vmap", 2, "1000 of W1", ["JAX"])
    kernels = results.get("W1", {}).get(REFERENCE, {}).get("kernels")
    row("W1, kernels a step", 8, kernels, least=False, unit="")
    apart = differences(results)
    worst = max(apart, key=apart.get) if apart else None
    row("losses after an epoch, apart", DIGITS, apart.get(worst), least=False, unit="", note=worst)
    return rows


def predictions(results, ceilings, products="float32", *, dry=False):
    """Return by workload the microseconds that this device's ceilings allow, and in words of what.

    Operations at a large product's speed, what exceeds the cache at a large copy's, and a graph's nodes; a stack on the
    chip has no nodes.
    """
    found = {}
    for name in results:
        ours = results[name].get(REFERENCE, {})
        if name not in {*SINGLE, *STACKS} or "microseconds" not in ours or not ceilings:
            continue
        workload, networks = workload_of(name, dry=dry)
        operations = workload.products / workload.steps * (networks or 1)
        size = bytes_of(workload, networks)
        parts = (
            operations / ceilings["operations"][products] * 1e6,
            size / ceilings["bytes"] * 1e6 if size > STAYS else 0.0,
            ours.get("kernels", 0) * ceilings["node"],
        )
        found[name] = sum(parts), parts
    return found
