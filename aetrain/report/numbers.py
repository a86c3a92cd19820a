"""Numbers as texts, and the round numbers of an axis."""

import math

MAX_PLAIN_NUMBER = 1e6  # from here on, numbers are written with an exponent
MIN_PLAIN_NUMBER = 1e-4  # below it, too
MAX_DECIMALS = 5
MAX_LOG_TICKS = 8  # with more, ticks are powers of ten only


def tick_values(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers from `low` to `high`."""
    if not high > low:
        return [low]
    raw_step = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw_step))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw_step * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def log_tick_values(low: float, high: float) -> list[float]:
    """Return round numbers for a logarithmic axis from `low` to `high`, both positive: 1, 2, 5, 10, ..."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        values = [factor * 10.0**power for power in powers for factor in factors]
        inside = [value for value in values if low <= value * (1 + 1e-9) and value <= high * (1 + 1e-9)]
        if len(inside) <= MAX_LOG_TICKS:
            break
    return inside


def format_number(value: float) -> str:
    """Return a number with four significant digits."""
    if value == 0:
        return "0"
    if abs(value) >= MAX_PLAIN_NUMBER or abs(value) < MIN_PLAIN_NUMBER:
        return f"{value:.2e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, MAX_DECIMALS)}f}"


def tick_label(value: float) -> str:
    """Return the label of a tick: `2,000`, `0.5`, `1e-05`, `1.5e+06`."""
    plain = value == 0 or MIN_PLAIN_NUMBER <= abs(value) < MAX_PLAIN_NUMBER
    return f"{value:,.10g}" if plain else f"{value:.3g}"
