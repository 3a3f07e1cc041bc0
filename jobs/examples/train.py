"""A DeepSpeed script of its own that lowtide can pause: it learns to guess the next byte of a text.
In: `--steps`, and a text file (this one, unless --text names another). Out: `model.pt` in lowtide's output folder.
script.yaml beside it runs it; by hand it is `torchrun --nproc-per-node 2 train.py`. What lowtide needs is marked.
"""

import argparse
import os
from pathlib import Path

import deepspeed
import lowtide  # 1: the import
import torch
from torch import nn

CONTEXT = 16


def main() -> None:
    """Train, save where asked to, leave the model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=32, help="of all ranks together")
    parser.add_argument("--text", type=Path, default=Path(__file__))
    args = parser.parse_args()
    deepspeed.init_distributed()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(256, 32), nn.Flatten(), nn.Linear(32 * CONTEXT, 256), nn.ReLU(), nn.Linear(256, 256)
    )
    config = {
        "train_batch_size": args.batch_size,
        "zero_optimization": {"stage": 1},
        "zero_allow_untested_optimizer": True,
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    engine, _, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)

    found = lowtide.resume()  # 2: what to go on from; None at first, and by hand
    if found:
        engine.load_checkpoint(found)
    text = torch.frombuffer(bytearray(args.text.read_bytes()), dtype=torch.uint8).long()
    for step in range(found.step if found else 0, args.steps):
        # The batch follows from the step alone, so a resumed run sees what an undisturbed one would have seen.
        starts = torch.randint(len(text) - CONTEXT, (args.batch_size,), generator=torch.Generator().manual_seed(step))
        mine = starts[rank::world]
        context = torch.stack([text[start : start + CONTEXT] for start in mine]).to(engine.device)
        following = text[mine + CONTEXT].to(engine.device)
        loss = nn.functional.cross_entropy(engine(context), following)
        engine.backward(loss)
        engine.step()
        if lowtide.due(step + 1, args.steps, loss, samples=(step + 1) * args.batch_size):  # 3: after every step
            with lowtide.save() as folder:  # 4: a pause ends the script here
                engine.save_checkpoint(folder)

    if rank == 0:
        torch.save(engine.module.state_dict(), Path(lowtide.output()) / "model.pt")


if __name__ == "__main__":
    main()
