"""How sure a count makes one: bounds of a rate at 95 %."""

import math

Z_95 = 1.959963984540054
CONFIDENCE = 0.95


def wilson(found: int, of: int) -> tuple[float, float]:
    """Return Wilson's score interval of the share `found` / `of` at 95 %."""
    if of == 0:
        return 0.0, 1.0
    share, square = found / of, Z_95 * Z_95
    middle = share + square / (2 * of)
    width = Z_95 * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    scale = 1 + square / of
    low, high = (middle - width) / scale, (middle + width) / scale
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def upper(found: int, of: int) -> float:
    """Return the exact one-sided upper bound (Clopper and Pearson) of a rate at 95 %.

    For none found it is 1 - 0.05 ** (1/n), the "rule of three": 3/n.
    """
    if of == 0 or found >= of:
        return 1.0
    low, high = found / of, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        if _at_most(found, of, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def _at_most(found: int, of: int, rate: float) -> float:
    """Return the probability of `found` or fewer among `of` (binomial)."""
    total = 0.0
    for count in range(found + 1):
        ways = math.lgamma(of + 1) - math.lgamma(count + 1) - math.lgamma(of - count + 1)
        total += math.exp(ways + count * math.log(rate) + (of - count) * math.log1p(-rate))
    return total
