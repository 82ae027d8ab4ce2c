"""From noise-free patterns to the images that a camera would record, with labels."""
