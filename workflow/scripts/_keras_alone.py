"""To be imported before Keras: what it and TensorFlow import if it is there, and jobs do not need.

That is a second of the start of a job. To a module that is None here Python says it is missing.
"""

import sys

for name in ("IPython", "jax", "matplotlib"):
    sys.modules.setdefault(name, None)
