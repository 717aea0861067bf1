"""Client certificates on every plane, over real sockets."""
