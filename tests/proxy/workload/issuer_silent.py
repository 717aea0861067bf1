"""A child that never says that it is ready, and does not end when it is asked to."""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()
