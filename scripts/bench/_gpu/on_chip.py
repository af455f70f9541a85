"""Small networks on the chip beside CUDA graphs: the same numbers, what a kernel takes, and what a step takes."""

from _gpu.graphs import AGREE, GRAPHS, apart, parameters, trained

ON_CHIP = {"GPUNET_ON_CHIP": "1"}


def taken(kernels):
    """Return words on what compiled kernels take of a multiprocessor."""
    import cupy
    from gpunet.backends.cupy.block_program import NAME
    from gpunet.backends.cupy.kernels import OPTIONS

    found = [cupy.RawKernel(source, NAME, OPTIONS) for source in kernels]
    return ", ".join(
        f"{kernel.num_regs} registers and {kernel.local_size_bytes} bytes outside of them"
        for kernel in found
    )


def compare(names, *, dry):
    """Print a line for each workload; return whether all agree and were on the chip."""
    agree = True
    for name in names:
        run, on_chip = trained(name, ON_CHIP, dry=dry)
        kernels = [] if dry else [*run.backend.on_chip.kernels]
        theta = parameters(run)
        del run
        run, graphs = trained(name, GRAPHS, dry=dry)
        expected = parameters(run)
        difference = apart(theta, expected)
        del run
        agree = agree and difference <= AGREE and (dry or kernels != [])
        print(
            f"{name}: {on_chip:.1f} microseconds a step on the chip, with graphs {graphs:.1f}; "
            f"parameters lie {difference:.1e} apart"
        )
        if kernels:
            print(f"  kernels so far: {taken(kernels)}")
    return agree
