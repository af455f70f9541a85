"""``python -m gpunet``: the command line."""

from gpunet.cli import main

main()
