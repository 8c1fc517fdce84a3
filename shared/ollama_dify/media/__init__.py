"""Images and audio: from bytes, a data URL or a path to checked files."""
