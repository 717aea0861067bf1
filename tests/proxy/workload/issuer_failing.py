"""A child that ends at once."""

import sys

if __name__ == "__main__":
    sys.exit(5)
