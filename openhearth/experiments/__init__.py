"""Is one recipe better than another, and by how much? Sweeps over settings, comparisons, curves side by side."""
