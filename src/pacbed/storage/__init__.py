"""Files that appear whole or not at all: zipped Zarr stores, tables, text. Knows no physics."""
