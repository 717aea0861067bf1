"""Bytes to values and back; nothing here does I/O, and every limit is an argument."""
