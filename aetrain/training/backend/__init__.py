"""How torch computes: matrix products, memory, precision, compilation."""
