"""From a pattern to strain without a network."""
