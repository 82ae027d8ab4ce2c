# %% [markdown]
# # Simulate and look
#
# Patterns of MoS2 are simulated, drawn, and looked at as arrays. This notebook runs in seconds, with coarse
# settings: it needs `pip install pacbed` and no more.

# %%
import os
import tempfile
from pathlib import Path

# %matplotlib inline
os.chdir(tempfile.mkdtemp())  # where the files of this notebook go

# %% [markdown]
# ## A first pattern
#
# One command computes the patterns after every layer. Five layers, a convergence semi-angle of 6.35 mrad:

# %%
# !pacbed simulate --material MoS2 --energy 80 --semiangle 6.35 \
#   --layers 5 --incident-step 3 --output mos2.zarr.zip 2>/dev/null

# %%
from pacbed.figures.patterns import show_patterns
from pacbed.patterns.store import read_patterns

store = read_patterns(Path("mos2.zarr.zip"))
show_patterns(store, [1, 5], 60)

# %% [markdown]
# Left half of each: linear intensity. Right half: cube root, which shows the weak outer discs.
#
# ## The same as arrays
#
# A pattern is a fraction of the incident electrons per pixel. Its rows are ky, its columns kx, in mrad.

# %%
patterns = store.patterns
print(patterns.shape, patterns.dtype)
print("electrons in the field, after 1 and 5 layers:", patterns[[0, -1]].sum(axis=(1, 2)))

# %% [markdown]
# ## With strain
#
# Stretched by 3 % along 0° and compressed by 4 % along 90°: the discs move together along x, and apart along y.

# %%
# !pacbed simulate --semiangle 6.35 --layers 5 --stretch 1.03 0.96 \
#   --incident-step 3 --output strained.zarr.zip 2>/dev/null

# %%
from pacbed.figures.patterns import compare_patterns

strained = read_patterns(Path("strained.zarr.zip"))
difference = strained.patterns[-1] - patterns[-1]
print(f"electrons that went elsewhere: {100 * abs(difference).sum() / 2:.1f} %")
compare_patterns(store, strained, [5], 60, ("undeformed", "strained"))

# %% [markdown]
# Next: [read a pattern](read.py), or how precisely this can be read at all ([the bound](../bound.md)).
