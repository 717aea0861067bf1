"""What belongs to a sandbox: its lease."""
