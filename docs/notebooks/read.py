# %% [markdown]
# # Read a pattern
#
# A pattern is simulated with a known strain, recorded with noise, and read by a fit. The settings are coarse, so that
# this takes seconds; with `pacbed scatter` as it is, the same is done to measured patterns
# ([reading measured patterns](../read.md)). It needs `pip install 'pacbed[learning]'`.

# %%
import json
import os
import tempfile
from pathlib import Path

import numpy as np

# %matplotlib inline
os.chdir(tempfile.mkdtemp())  # where the files of this notebook go
os.environ.pop("FORCE_COLOR", None)  # which Jupyter sets
os.environ["COLUMNS"] = "130"  # width of tables

# %% [markdown]
# ## A scattering series
#
# Twelve strain states of five layers are simulated. Patterns of any strain between them follow by polynomials
# ([scattering series](../series.md)).

# %%
# !pacbed scatter --layers 5 --semiangle 6.35 --stretch 0.97 1.03 --tilt 3 --fov 50 \
#   --states 12 --supercell 3 2 --diffuse-waves 16 --incident-step 3 \
#   --output mos2.series.zarr.zip 2>/dev/null

# %% [markdown]
# ## A pattern to read
#
# Stretched by 1.2 % along 30° and compressed by 0.5 % across, and tilted by 1 and -0.5 mrad;
# ten million electrons, each of which is counted.

# %%
# !pacbed simulate --series mos2.series.zarr.zip --semiangle 6.35 \
#   --stretch 1.012 0.995 --theta 30 --tilt 1 -0.5 --fov 50 --pixels 64 \
#   --output true.zarr.zip 2>/dev/null

# %%
from pacbed.patterns.store import read_patterns

store = read_patterns(Path("true.zarr.zip"))
electrons = 1e7
measured = np.random.default_rng(1).poisson(electrons * store.patterns[-1])
np.save("measured.npy", measured)
print(measured.shape, "pixels of", store.pixel_mrad[0], "mrad; largest count", measured.max())

# %% [markdown]
# ## Read it
#
# Camera length and gain are known here. Strain, rotation, tilt, centre and number of layers are fitted.

# %%
# !pacbed read measured.npy --series mos2.series.zarr.zip --semiangle 6.35 \
#   --layers 4-5 --pixel-mrad 0.78125 --counts-per-electron 1 \
#   --no-fit-semiangle --model-error 0 --json read.json --figure read.png 2>/dev/null

# %%
from IPython.display import Image

Image("read.png", width=700)

# %% [markdown]
# Measured pattern, fitted pattern, and what is left. All numbers are in the JSON file, too. Each value should lie
# within about two standard deviations of the true one:

# %%
[found] = json.loads(Path("read.json").read_text())["patterns"]
λ1, λ2, θ = 1.012, 0.995, np.radians(30)
true = {
    "strain_xx": λ1 * np.cos(θ) ** 2 + λ2 * np.sin(θ) ** 2 - 1,
    "strain_yy": λ1 * np.sin(θ) ** 2 + λ2 * np.cos(θ) ** 2 - 1,
    "strain_xy": (λ1 - λ2) * np.sin(θ) * np.cos(θ),
}
for name, value in true.items():
    sigma = found[f"{name}_sigma"]
    read = f"{100 * found[name]:.3f} ± {100 * sigma:.3f} %"
    print(f"{name}: {read}, true {100 * value:.3f} %")
    assert abs(found[name] - value) < 4 * sigma
print("layers:", found["layers"], " flags:", found["flags"] or "none")
