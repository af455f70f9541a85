"""What was measured, in words, tables and a picture."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

from _search.rounds import FOUR_DIGITS, Section

SCORE_TOLERANCE = 0.005  # rounding in float32 may decide a few examples otherwise
SAME = 0.9  # share of the networks whose losses agree to four digits
BUSY = 0.1  # share of the cores' time that other processes may have

TITLES = {
    "A": "A: whole searches, networks of ordinary size",
    "B": "B: whole searches, small networks",
    "ensemble": "Ensembles",
    "growth A": "From one candidate to many: A",
    "growth B": "From one candidate to many: B",
}

INTRODUCTION = """# Whole searches trained as one program

Written by `scripts/bench/search`. Every contestant searches the same candidates on the same folds, starts from the
same weights, sees the same minibatches in the same order and comes to the same scores; fastest first, whoever that is.
Each visit is a process of its own, in rounds there and back. *First* is the first search of a process, with imports,
worker processes and compilation; *median* is of its later ones. *Times* is scikit-learn's median over it, from the
same run.

torch and JAX are written by hand for this benchmark (`scripts/bench/_search/`): `torch.func` over stacked modules;
`jax.vmap` with `lax.scan` under `jit`. The size of their stacks, and how many are trained at once, are the fastest of
those tried before the clock runs. gpunet finds its own while it runs.
"""

GROWTH = """Without a refit. A single candidate pays for what a search costs anyway: checks of the data, folds, random
numbers of the minibatches, and calls that take as long for one network as for several. More candidates share that,
and the line is flatter than the dashed one, until there is a stack for each core and it is as large as gpunet lets it
be for the core's cache ({mebibytes:.0f} MiB of numbers). From then on there are more stacks, not larger ones, and time
is in proportion to the networks. One after another, as by scikit-learn, it is nearly so from the start: dotted is what
was not measured. *Exponent* is the slope from the row above.
"""


def markdown(sections: dict[str, Section]) -> str:
    """Return the report."""
    parts = [INTRODUCTION]
    for name, title in TITLES.items():
        if name in sections:
            section = sections[name]
            table = _growth(section) if name.startswith("growth") else _competition(section)
            parts += [f"## {title}\n", f"{_capital(section['workload'])}.\n", table]
            if name.startswith("growth"):
                parts.append(GROWTH.format(mebibytes=section["stack_bytes"] / 2**20))
    if any(name.startswith("growth") for name in sections):
        parts.append("![Seconds of a search by its number of candidates](search.png)\n")
    return "\n".join([*parts, _circumstances(sections)])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _competition(section: Section) -> str:
    rows = sorted(section["rows"].items(), key=lambda item: item[1]["median"])
    lines = [
        "| | median, s | fastest to slowest | first, s | times | same losses |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in rows:
        stacks = ""
        if row["options"]:
            stacks = ", stacks of {size}, {threads} at once".format(**row["options"])
        bold = "**" if name in ("gpunet", "EnsembleClassifier") else ""
        span = f"{min(row['seconds']):.3f} to {max(row['seconds']):.3f}"
        same = row["agreement"].get("same")
        same = "" if same is None else f"{100 * same:.0f} %"
        lines.append(
            f"| {bold}{name}{bold}{stacks} | {row['median']:.3f} | {span} | {row['first']:.2f} | {row['ratio']:.2f} "
            f"| {same} |"
        )
    return "\n".join(lines) + "\n\n" + _agreement(section)


def _agreement(section: Section) -> str:
    """Return how far the answers are apart."""
    found = [row["agreement"] for row in section["rows"].values()]
    scores = max(each["scores"] for each in found)
    if "rounding" in section:
        worst = 100 * max(each.get("losses", 0.0) for each in found)
        own = section["rounding"]
        text = (
            "*Same losses* is the share of the networks whose training losses are scikit-learn's to four digits in "
            f"every epoch; for its own in float64 it is {100 * own['same']:.0f} %, since large learning rates amplify "
            f"rounding. The largest difference of a loss is {worst:.1g} % (in float64 {100 * own['losses']:.1g} %), of "
            f"a candidate's mean score {scores:.1g}."
        )
    else:
        text = f"The largest difference of a probability is {scores:.1g}."
    others = [name for name, row in section["rows"].items() if not agrees(row)]
    if others:
        text += f" **{', '.join(others)}: THE ANSWERS DIFFER.**"
    return text + "\n"


def agrees(row: dict[str, Any]) -> bool:
    """Return whether a contestant has come to what scikit-learn has.

    Every network's first epoch has to be scikit-learn's to four digits, and nearly every network's whole curve.
    """
    found = row["agreement"]
    return (
        found["scores"] <= SCORE_TOLERANCE
        and found.get("first", 0.0) <= FOUR_DIGITS
        and found.get("same", 1.0) >= SAME
    )


def _growth(section: Section) -> str:
    ours, theirs = section["seconds"]["gpunet"], section["seconds"]["scikit-learn"]
    lines = [
        "| candidates | networks | gpunet, s | ms a network | exponent | scikit-learn, s | times |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    before = None
    for count, seconds in ours.items():
        networks = int(count) * section["folds"]
        exponent = ""
        if before is not None:
            ratio = math.log(seconds / before[1]) / math.log(int(count) / before[0])
            exponent = f"{ratio:.2f}"
        before = int(count), seconds
        their = theirs.get(count)
        end = " |  |" if their is None else f" {their:.3f} | {their / seconds:.1f} |"
        lines.append(
            f"| {int(count):,} | {networks:,} | {seconds:.3f} | {1000 * seconds / networks:.2f} | {exponent} |{end}"
        )
    return "\n".join(lines) + "\n"


def _circumstances(sections: dict[str, Section]) -> str:
    """Return what the sections were measured on, those of one day and machine together."""
    lines = ["## Measured on\n"]
    for name, section in sections.items():
        about = section["environment"]
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        pools = {_pool(pool) for pools in section["libraries"].values() for pool in pools}
        typical, most = (100 * share for share in section["busy_elsewhere"])
        lines.append(
            f"- {_capital(name)}: {about['date']}, {about['cores']} cores of {about['cpu']}; {about['system']}, "
            f"Python {about['python']}, {versions}. Threads: {'; '.join(sorted(pools))}. "
            f"Variables unset for it: {', '.join(about['unset']) or 'there were none'}. "
            f"Other processes had {typical:.0f} % of the cores' time, {most:.0f} % at the most."
            + (" **THE MACHINE WAS BUSY: measure again.**" if typical > 100 * BUSY else "")
        )
    return "\n".join(lines) + "\n"


def _pool(pool: dict[str, Any]) -> str:
    words = (pool["internal_api"], pool["version"], pool["architecture"])
    return " ".join(word for word in words if word) + f" × {pool['num_threads']}"


def draw(sections: dict[str, Section], path: Path) -> None:
    """Write the picture of how time grows, if that was measured."""
    from matplotlib.figure import Figure

    from gpunet.plot import BLUE, GREY, ORANGE

    names = [name for name in TITLES if name.startswith("growth") and name in sections]
    if not names:
        return
    figure = Figure(figsize=(5.2 * len(names), 4.2), layout="constrained")
    for name, ax in zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True):
        section = sections[name]
        curves = {
            who: ([int(count) for count in each], list(each.values()))
            for who, each in section["seconds"].items()
        }
        x, y = curves["scikit-learn"]
        most = max(itertools.chain(*(counts for counts, _ in curves.values())))
        cores = section["environment"]["cores"]
        label = f"one after another: scikit-learn, {cores} processes"
        ax.plot(x, y, "o-", color=BLUE, label=label)
        ax.plot([x[-1], most], [y[-1], y[-1] * most / x[-1]], ":", color=BLUE)
        x, y = curves["gpunet"]
        ax.plot(x, y, "s-", color=ORANGE, label="together: gpunet")
        ax.plot([x[0], x[-1]], [y[0], y[0] * x[-1] / x[0]], "--", color=GREY, label="in proportion")
        ax.set(xscale="log", yscale="log", xlabel="candidates", ylabel="seconds of a search")
        ax.set_title(f"{name[-1]}: {section['workload'].partition('; ')[2]}", fontsize=8)
        ax.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
