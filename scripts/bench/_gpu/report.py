"""What came of the race: tables for people, and where it was run."""

import importlib.metadata
import platform
import subprocess

from _gpu.contestants import CEILINGS, REFERENCE
from _gpu.verdicts import predictions, verdicts

PACKAGES = (
    "cupy-cuda13x", "cupy-cuda12x", "cupy", "nvidia-cublas", "nvidia-cuda-nvrtc", "nvmath-python", "numpy", "torch",
    "triton", "jax", "jaxlib", "scikit-learn", "gpunet",
)  # fmt: skip


def versions():
    """Return the installed ones of the packages that matter."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def environment(*, dry=False):
    """Return where this runs: device, driver, versions."""
    about = {
        "device": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": versions(),
    }
    if dry:
        return about
    import cupy

    runtime, device = cupy.cuda.runtime, cupy.cuda.Device()
    properties = runtime.getDeviceProperties(device.id)
    about |= {
        "device": properties["name"].decode(),
        "compute_capability": device.compute_capability,
        "memory": properties["totalGlobalMem"],
        "multiprocessors": properties["multiProcessorCount"],
        "cuda_runtime": runtime.runtimeGetVersion(),
        "cuda_driver": runtime.driverGetVersion(),
        "cublas": cupy.cuda.cublas.getVersion(device.cublas_handle),
        "nvrtc": ".".join(map(str, cupy.cuda.nvrtc.getVersion())),
    }
    query = (
        "name,driver_version,pstate,clocks.sm,clocks.mem,power.limit,memory.used,mig.mode.current"
    )
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        about["nvidia_smi"] = done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        about["nvidia_smi"] = f"{type(error).__name__}: {error}"
    return about


def rows_of(results):
    """Return the table's cells: a step's microseconds, and the ratio to gpunet."""
    contestants = {who: None for each in results.values() for who in each}
    rows = [["", *contestants]]
    for name, each in results.items():
        ours = each.get(REFERENCE, {}).get("microseconds")
        row = [name]
        for found in (each.get(who, {}) for who in contestants):
            if "microseconds" not in found:
                row.append("–" if found else "")
            elif ours is None:
                row.append(f"{found['microseconds']:.1f}")
            else:
                row.append(f"{found['microseconds']:.1f} ({found['microseconds'] / ours:.2f})")
        rows.append(row)
    return rows


def verdict_rows(found):
    """Return a table's cells: what was asked and what was reached."""
    return [["", "asked", "reached", "verdict"], *map(list, verdicts(found["results"]))]


def prediction_rows(found, *, dry=False):
    """Return a table's cells: the microseconds that the ceilings allow beside those that a step took."""
    rows = [["", "products", "bytes", "nodes", "together", "measured", "of it"]]
    allowed = predictions(found["results"], found["ceilings"], found["products"], dry=dry)
    for name, (together, parts) in allowed.items():
        measured = found["results"][name][REFERENCE]["microseconds"]
        cells = (*parts, together, measured)
        rows.append([name, *(f"{cell:.1f}" for cell in cells), f"{100 * together / measured:.0f} %"])  # fmt: skip
    return rows


def aligned(rows):
    """Return rows as lines to print, their first cells to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def marked(rows):
    """Return rows as a table of Markdown."""
    header, *rest = [f"| {' | '.join(row)} |" for row in rows]
    return [header, f"|{'---|' * len(rows[0])}", *rest, ""]


def table(found):
    """Return what to print: times, and what was asked beside what was reached."""
    title = (
        "Microseconds a step (in brackets the ratio to gpunet); all networks of a stack together"
    )
    lines = [title, *aligned(rows_of(found["results"])), *problems(found["results"])]
    return "\n".join([*lines, "", *aligned(verdict_rows(found))])


def short(found):
    """Return what was asked beside what was reached."""
    return "\n".join(aligned(verdict_rows(found)))


def problems(results):
    """Return a line for each reason why a contestant has no number."""
    lines = {}
    for name, each in results.items():
        for contestant, found in each.items():
            if "problem" in found:
                lines.setdefault((contestant, found["problem"]), []).append(name)
    return [
        f"{contestant}, {', '.join(names)}: {problem}"
        for (contestant, problem), names in lines.items()
    ]


def ceiling_lines(ceilings):
    """Return lines on what the device can do at most."""
    if not ceilings:
        return ["- Not measured."]
    rates = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in ceilings["operations"].items())
    return [
        f"- A large product, operations in 10¹² a second: {rates}.",
        f"- A large copy, read and written: {ceilings['bytes'] / 1e12:.3g} TB/s.",
        f"- A kernel started from Python {ceilings['launch']:.2f} µs, a graph of one {ceilings['graph']:.2f} µs, "
        f"a kernel more in a graph {ceilings['node']:.2f} µs.",
    ]


def markdown(found, *, dry=False):
    """Return the report to keep."""
    about = found["environment"]
    lines = [
        f"# Training on {about['device']}",
        "",
        "Written by `scripts/bench/gpu`: one run. float32, multiplied by everyone as "
        f"{found['products']}; shuffled minibatches, Adam, L2.",
        *(["", "**A dry run on a processor: these numbers say nothing.**"] if dry else []),
        "",
        "## What was asked",
        "",
        *marked(verdict_rows(found)),
        "## Times",
        "",
        "Median microseconds a step, in brackets the ratio to gpunet; all networks of a stack or a search together.",
        "W1 to W3 are described in `scripts/bench/_contestants/workloads.py`, the others in",
        "`scripts/bench/_gpu/workloads.py`.",
        "",
        *marked(rows_of(found["results"])),
        *(f"- {line}" for line in problems(found["results"])),
        "",
        "## Ceilings",
        "",
        *ceiling_lines(found[CEILINGS]),
        "",
        "What they allow a step, in microseconds, beside what it took:",
        "",
        *marked(prediction_rows(found, dry=dry)),
        "```",
        *(f"{key}: {value}" for key, value in about.items()),
        "```",
    ]
    return "\n".join(lines) + "\n"
