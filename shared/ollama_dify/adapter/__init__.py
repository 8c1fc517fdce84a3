"""Names that only authors of adapters need."""
