"""A Hugging Face Trainer script with lowtide's callback and no other change, on a tiny Llama.
In: `--steps`, `--zero` for DeepSpeed. Out: the trained weights, as safetensors, and the losses that were logged.
test_script.py runs it on two ranks.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import lowtide
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments


class Lines(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokens that follow from their index alone."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens = torch.randint(0, 64, (16,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": tokens, "labels": tokens}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--zero", type=int, default=None)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            attention_dropout=0.1,
        )
    )
    deepspeed = None
    if args.zero is not None:
        deepspeed = {
            "zero_optimization": {"stage": args.zero},
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "zero_allow_untested_optimizer": True,
        }
    settings = TrainingArguments(
        output_dir="trainer-out",
        max_steps=args.steps,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=args.zero is None,
        ddp_backend="gloo",
        disable_tqdm=True,
        optim="adamw_torch",
        deepspeed=deepspeed,
    )
    trainer = Trainer(model=model, args=settings, train_dataset=Lines(), callbacks=[lowtide.callback()])
    trainer.train(resume_from_checkpoint=lowtide.resume())

    trainer.save_model(lowtide.output())
    if trainer.is_world_process_zero():
        losses = {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
        (Path(lowtide.output()) / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main()
    os._exit(0)  # as rank.py: gloo's threads abort a Python that ends, now and then
