"""The plane-wave engine: one multislice calculation per incident plane wave."""
