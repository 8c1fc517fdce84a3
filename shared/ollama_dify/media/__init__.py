"""Images and sounds: from bytes, a data URL or a path to checked files."""
