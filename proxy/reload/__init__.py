"""Rule files: read, watched, and brought into force while we run."""
