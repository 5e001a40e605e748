"""The `.afmrl` folder: paths, atomic writes, locks, database, checkpoints."""
