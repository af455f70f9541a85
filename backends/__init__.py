"""The array libraries: the only place where one is named, one file each."""
