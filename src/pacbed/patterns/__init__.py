"""Patterns that are kept in stores, and compared."""
