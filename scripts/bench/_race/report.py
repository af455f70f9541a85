"""What was measured as tables: on the terminal, in Markdown, in JSON."""

import json
import math
from dataclasses import dataclass

from _contestants import PEERS, REFERENCE, ROUGHLY, TRUTH
from rich.console import Console
from rich.table import Table

from _race.rounds import summary


def number(value):
    """Return three digits at least."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def digits(deviations):
    """Return in how many digits losses agree: the first, and the worst."""
    if deviations is None:
        return "–"
    first, worst = (
        min(15, math.floor(-math.log10(max(deviation, 1e-15))))
        for deviation in (deviations[0], max(deviations))
    )
    return f"{first} / {worst}"


def agreement(result):
    """Yield in words how well the losses of all agree, where they are known."""
    known = {name: row.get("deviations") for name, row in result["rows"].items()}
    known = {name: deviations for name, deviations in known.items() if deviations is not None}
    if len(known) < 2:
        return
    alike = [known[name] for name in known if name not in ROUGHLY]
    yield f"Losses agree to {digits([max(each) for each in zip(*alike, strict=True)])} digits or more."
    for name in filter(known.get, ROUGHLY):
        yield f"{name}'s agree to {digits(known[name])} digits."
    rounding = result["rounding"]
    if rounding is not None:
        yield f"{TRUTH}'s agree with its own in double precision to {digits(rounding)} digits."
    double = result["workload"]["dtype"] == "float64"
    far = [
        name
        for name, deviations in known.items()
        if differ(deviations, rounding, double and name not in ROUGHLY)
    ]
    if far:
        yield f"NOT THE SAME, more than rounding explains: {', '.join(far)}."


def differ(deviations, rounding, closely):
    """Return whether losses deviate so far that something else must have been computed.

    The first ones tell: rounding hardly shows in them. Later on it may have grown a thousandfold, as units tip over
    ReLU's corner, and what it makes of one run gives another's order of magnitude only. ``closely`` leaves it no room.
    """
    if closely:
        return max(deviations) > 1e-10
    return deviations[0] > 1e-4 or max(deviations) > max(1e-2, 10 * max(rounding or [0]))


def disturbance(share):
    """Yield in words what others took of the processor, where it is worth a word."""
    if share >= 0.1:
        yield f"DISTURBED: in one of the trials, others took {percent(share)} % of a core."


def measured(result):
    """Yield in words when something was measured and with which gpunet, and where other than the report's head says."""
    for what, value in result.get("measured", {}).items():
        yield f"{what}: {value}"


def percent(share):
    """Return a share in percent."""
    return "–" if share is None else f"{100 * share:.0f}"


TIME = {
    "± %": lambda row: percent(row["off"]),
    f"× {REFERENCE}": lambda row: f"{row['ratio']:.2f}" if "ratio" in row else "–",
}
TRAINING = {
    "µs a step": lambda row: number(row["median"]),
    **TIME,
    "products, %": lambda row: percent(row["of the products"]),
    "faults a step": lambda row: f"{max(0, row['faults']):.1f}",
    "rest of a fit, ms": lambda row: f"{1e3 * max(0, row['fixed']):.1f}",
    "first fit, s": lambda row: f"{row['first']:.2f}",
    "memory, MB": lambda row: f"{row['memory']:.0f}",
    "digits": lambda row: digits(row.get("deviations")),
}
CALLS = {"µs": TRAINING["µs a step"], **TIME}
FIRST_USE = {
    "first fit, s": lambda row: f"{row['median']:.2f}",
    **TIME,
    "a second one, s": lambda row: f"{row['again']:.3f}",
    "compiling, s": lambda row: f"{row['compiling']:.2f}",
    "import, s": lambda row: f"{row['load']:.2f}" if row["load"] > 1e-3 else "–",
}
IMPORTS = {"ms": TRAINING["µs a step"], **TIME, "memory, MB": TRAINING["memory, MB"]}
COLUMNS = {"training": TRAINING, "calls": CALLS, "first use": FIRST_USE, "imports": IMPORTS}

LEGEND = f"""\
A step's time is the difference between fits of many and of few epochs, divided by the steps between them, so that what
a fit costs once falls out; "rest of a fit" is that. Medians over rounds, contestants in turns, each in a process of its
own; ± is the median distance from the median. Ratios are medians of the ratios within a round: above 1 is slower than
{REFERENCE}. "Products" is the time that a step's matrix products alone take in NumPy, as a share of the contestant's.
Page faults are minor ones. The first fit includes compilation, for which numba and torch.compile may find what they
have kept on disk; "first use" measures it in new processes, with an empty cache and with what that left there, numba's
import by itself. Memory is the process's peak, libraries and data included. "Digits": in how many the losses agree with
{TRUTH}'s after the first epochs / at worst after some more, computed from everyone's parameters by one formula in
double precision. Loops written by hand get data, labels and shuffles ready-made and don't check what they are given;
the estimators do all this in each fit. torch's Adam adds ε elsewhere, which its loops correct and skorch can't; skorch
and thinc let weights decay in a last, smaller minibatch as in a full one. Everyone has all threads, but torch one of
its own and one of SciPy's under L-BFGS: with more they take the processors from each other, and an iteration takes 20
times as long. torch.optim.LBFGS searches its lines otherwise, so that its losses aren't compared. "gpunet, numba" takes
numba from the first step on (GPUNET_NUMBA=1); by default a run goes over to it after some tenths of a second, unless an
epoch takes a millisecond. An iteration of W4 is one step; one of L-BFGS may evaluate the cost more than once. A trial
during which other processes took a tenth of a core is repeated, a few times at most."""
GROWTH = """\
Medians over rounds, contestants in turns, each in a process of its own. Operations are those of the matrix products
and of the update; an exponent p is that of time ~ sizeᵖ, fitted to the upper half of the sizes."""


ALWAYS = ("date", "gpunet", "rounds")
"""What is said of each part."""
BESIDE = ["scikit-learn", "torch", "torch, by hand", "torch.compile", "JAX, scan"]
"""Peers of the first table."""


@dataclass
class Sheet:
    """A table: rows of words below a header, and what is to be said of who isn't in it."""

    title: str
    header: list
    rows: list
    notes: list

    @classmethod
    def of(cls, result, columns):
        """Return a result's, the fastest first."""
        ranked = sorted(result["rows"].items(), key=lambda item: item[1]["median"])
        about = f": {describe(result['workload'])}" if "workload" in result else ""
        return cls(
            result["title"] + about,
            ["", *columns],
            [[name, *(cell(row) for cell in columns.values())] for name, row in ranked],
            [
                *agreement(result),
                *measured(result),
                *disturbance(result.get("others", 0)),
                *(f"{name}: {reason}" for name, reason in result["absent"].items()),
            ],
        )

    def rich(self):
        """Return it for a terminal."""
        table = Table(title=self.title, title_justify="left")
        for name in self.header:
            table.add_column(name, justify="right" if name else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*row, style="bold" if row[0].startswith(REFERENCE) else None)
        return table

    def markdown(self):
        """Return it in Markdown."""
        rule = ["---", *["---:"] * (len(self.header) - 1)]
        lines = [f"| {' | '.join(row)} |" for row in (self.header, rule, *self.rows)]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"## {self.title}", "", *lines, *([""] if notes else []), *notes, ""])


def describe(workload):
    """Return a workload in words."""
    w = workload
    order = "all examples a step" if w["batch"] == w["n"] else f"batch {w['batch']:,}"
    return (
        f"n={w['n']:,}, d={w['d']:,}, hidden {tuple(w['hidden'])}, {w['classes']} classes, {order}, "
        f"{w['activation']}, {w['solver'].replace('_', ' ')}, {w['dtype']}"
    )


def beside_peers(results):
    """Return gpunet on a library beside the fastest loop written by hand in it; None where nobody has run.

    Parameters
    ----------
    results : list of dict
        Of `measures.training`.
    """
    rows = []
    for result in results:
        known = result["rows"]
        for name in filter(known.get, PEERS):
            peers = {peer: known[peer]["median"] for peer in PEERS[name] if peer in known}
            if not peers:
                continue
            fastest = min(peers, key=peers.get)
            pair = {each: known[each]["trials"] for each in (name, fastest)}
            row = summary(pair, fastest)[name]
            cells = [number(row["median"]), fastest, number(peers[fastest]), f"{row['ratio']:.2f}"]
            rows.append([name, result["title"], *cells])
    header = ["", "workload", "µs a step", "fastest peer", "its µs", "× the peer"]
    title = "Backends beside their own hand-written peers"
    return Sheet(title, header, rows, []) if rows else None


def beside_numba(results):
    """Return gpunet with NumPy alone and with numba beside the others: their time over its; None without the two."""
    rows = []
    with_numba = f"{REFERENCE}, numba"
    for result in results:
        known = result["rows"]
        if not {REFERENCE, with_numba} <= set(known):
            continue
        trials = {name: row["trials"] for name, row in known.items()}
        alone, numba = summary(trials, REFERENCE), summary(trials, with_numba)
        ratios = [
            f"{alone[name]['ratio']:.2f} / {numba[name]['ratio']:.2f}" if name in known else "–"
            for name in BESIDE
        ]
        shares = [percent(known[name]["of the products"]) for name in (REFERENCE, with_numba)]
        times = [number(known[name]["median"]) for name in (REFERENCE, with_numba)]
        rows.append([result["title"], *times, *ratios, " / ".join(shares)])
    header = ["", "gpunet, µs", "with numba, µs", *BESIDE, "products, %"]
    title = (
        "NumPy alone / with numba: the time of others over gpunet's, above 1 is slower than gpunet"
    )
    return Sheet(title, header, rows, []) if rows else None


def climbed(ladder):
    """Return a ladder's table: seconds an epoch at each size, and the exponents."""
    named = [f"{name}, s" for name in ladder["curves"]]
    rows = []
    for size, count in zip(ladder["sizes"], ladder["operations"], strict=True):
        seconds = [
            dict(zip(curve["sizes"], curve["seconds"], strict=True)).get(size)
            for curve in ladder["curves"].values()
        ]
        cells = ["–" if each is None else number(each) for each in seconds]
        rows.append([f"{size:,}", f"{count / 1e9:.3g}", *cells])
    exponents = [ladder["exponent"], *(curve["exponent"] for curve in ladder["curves"].values())]
    rows.append(["exponent", *("–" if p is None else f"{p:.2f}" for p in exponents)])
    notes = [*measured(ladder), *(f"{name}: {reason}" for name, reason in ladder["absent"].items())]
    title = f"{ladder['title'].capitalize()}: {ladder['about']}"
    return Sheet(title, ["", "10⁹ operations", *named], rows, notes)


def show(sheet):
    """Print a table and its notes."""
    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    console.print(sheet.rich(), *(f"  {note}" for note in sheet.notes), "", sep="\n")


def sheets(report):
    """Return a report's tables."""
    ladders = [climbed(ladder) for ladder in report.get("ladders", [])]
    training = report.get("training", [])
    overviews = [each for each in (beside_numba(training), beside_peers(training)) if each]
    found = [
        Sheet.of(result, columns)
        for kind, columns in COLUMNS.items()
        for result in report.get(kind, [])
    ]
    return ladders + overviews + found


def merged(report, folder, name):
    """Return a report with what an earlier one has besides: a part may be measured anew by itself.

    What was other than it is now when an earlier part was measured, such as a library's version, is noted with it.
    """
    try:
        earlier = json.loads((folder / f"{name}.json").read_text())
    except FileNotFoundError:
        return report
    report, now = dict(report), report["environment"]
    for kind in (*COLUMNS, "ladders"):
        for result in earlier.get(kind, []):
            then = earlier["environment"] | result.get("measured", {})
            result["measured"] = {
                what: value
                for what, value in then.items()
                if what in ALWAYS or (what in now and value != now[what])
            }
        known = {each["title"]: each for each in (*earlier.get(kind, []), *report.get(kind, []))}
        if known:
            report[kind] = [known[title] for title in known]
    return report


def write(report, folder, name):
    """Write JSON, Markdown and a picture.

    Parameters
    ----------
    report : dict
    folder : Path
    name : str
        Of the files, without their ending.
    """
    from _race.pictures import draw  # imports matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    lines = ["# Measured by `scripts/bench/train`", "", f"![the same as a picture]({name}.png)", ""]
    lines += [f"- {what}: {value}" for what, value in report["environment"].items()]
    lines += ["", LEGEND if "training" in report else GROWTH, ""]
    lines += [sheet.markdown() for sheet in sheets(report)]
    (folder / f"{name}.md").write_text("\n".join(lines))
    draw(report, folder / f"{name}.png")
    print(f"Written: {folder / name}.json, .md and .png")
