"""The probes and planted defects that this repository's contracts bind to, one module per subject."""

import os

# numpy's products are tiles' in Triton's interpreter, too small for threads: those wait for each other, on a busy host
# five times as long as the products take. It reads this when torch imports it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
