"""Data files of the package: measurements with their sources."""
