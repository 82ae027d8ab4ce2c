"""How precisely a pattern is read, and how precisely it can be read at best."""
