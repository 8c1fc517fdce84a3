"""Images: from bytes, a data URL or a path to checked bytes."""
