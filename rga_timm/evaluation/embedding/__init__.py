"""Images to features, and features on disk."""
