"""The control socket: what the admin may ask and change while we run."""
