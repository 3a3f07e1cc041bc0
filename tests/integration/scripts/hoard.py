"""A script whose checkpoints grow: a little at first, more than a small disk holds from step 4 on."""

from __future__ import annotations

import os
import sys

import lowtide
import torch

STEPS = 6

found = lowtide.resume()
for step in range(1 + (found.step if found else 0), STEPS + 1):
    if lowtide.due(step, STEPS):
        with lowtide.save() as folder:
            weights = torch.zeros(1000 if step < 4 else 1_000_000)
            if os.environ["RANK"] == "0":
                path = os.path.join(folder, "weights")
                if sys.argv[1] == "torch":
                    torch.save(weights, path)
                else:
                    with open(path, "wb") as out:
                        out.write(weights.numpy().tobytes())
