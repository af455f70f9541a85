"""Tables of mixed columns: reading, preparing, training on them and reporting, as the command line does it."""
