"""Results with all that decides what they mean: how sure they are, how they compare."""
