"""The small files of ours that more than one process writes: SQLite, and what watches them."""
