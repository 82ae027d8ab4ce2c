"""Figures, from pattern stores and tables only."""
