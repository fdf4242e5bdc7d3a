"""Distances, ranks and what they are worth; on features, whoever made them."""
