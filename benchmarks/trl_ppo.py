"""PPO by TRL 1.12, its last version that has one: the child of `benchmarks.ppo` that runs in an environment of its own.

Told the same as Solon's PPO, and given a key-value cache and an optimizer with a learning rate for the value model. It
takes its optimizer steps per mini-batch only without gradient accumulation, so that a whole batch counts as one
device's. The column `trl` leaves the rest to TRL's defaults; the others are tuned for a small model on a CPU.
"""

import os
from types import SimpleNamespace
from typing import Any

from benchmarks.ppo_child import Job, Meter, run_child

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"


def train(job: Job, meter: Meter) -> None:
    trainer = make_trainer(job, meter)
    attach(trainer, job, meter)
    trainer.train()
    trainer.policy_model.save_pretrained(job.output)


def make_trainer(job: Job, meter: Meter) -> Any:
    """TRL's trainer over the same models, prompts and optimizer as Solon's."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl.experimental.ppo import PPOTrainer

    set_seed(job.seed)
    tokenizer = AutoTokenizer.from_pretrained(job.policy, padding_side="left")
    policy = AutoModelForCausalLM.from_pretrained(job.policy, dtype=torch.float32)
    policy.generation_config.use_cache = True
    reward, value = standardised(scalar_model(job.reward), job.score_mean, job.score_std), scalar_model(job.reward)
    torch.nn.init.zeros_(value.score.weight)
    groups = [
        {"params": list(policy.parameters()), "lr": job.settings["learning_rate"]},
        {"params": list(value.parameters()), "lr": job.settings["value_learning_rate"]},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return PPOTrainer(
        args=trl_config(job),
        processing_class=tokenizer,
        model=policy,
        ref_model=None,  # a copy of the policy
        reward_model=reward,
        value_model=value,
        train_dataset=Dataset.from_list([{"input_ids": ids} for ids in job.prompt_ids]),
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)),
        callbacks=[update_callback(meter)],
    )


def scalar_model(folder: str) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)


def standardised(model: Any, mean: float, std: float) -> Any:
    """The reward model with a head that says (score - mean) / std, which TRL's penalties are then on the scale of."""
    import torch

    plain = model.score
    model.score = torch.nn.Linear(plain.in_features, 1)
    with torch.no_grad():
        model.score.weight.copy_(plain.weight / std)
        model.score.bias.fill_(-mean / std)
    return model


def tuned(settings: dict[str, Any]) -> dict[str, Any]:
    """What is faster for it here than its defaults, which are bfloat16, checkpointing, and passes of 64 samples."""
    return {
        "bf16": False,
        "gradient_checkpointing": False,
        "local_rollout_forward_batch_size": settings["batch_size"],
    }


def trl_config(job: Job) -> Any:
    """Solon's settings in TRL's words."""
    from trl.experimental.ppo import PPOConfig

    settings = job.settings
    return PPOConfig(
        output_dir=job.output,
        seed=job.seed,
        total_episodes=settings["num_updates"] * settings["batch_size"],
        per_device_train_batch_size=settings["batch_size"],
        gradient_accumulation_steps=1,
        num_mini_batches=settings["batch_size"] // settings["mini_batch_size"],
        num_ppo_epochs=settings["num_epochs"],
        response_length=settings["max_tokens"],
        stop_token="eos",
        missing_eos_penalty=settings["missing_eos_penalty"] or None,
        temperature=settings["temperature"],
        kl_coef=settings["kl_coef"],
        kl_estimator=settings["kl_estimator"],
        cliprange=settings["clip_range"],
        cliprange_value=settings["value_clip_range"],
        vf_coef=1.0,
        gamma=settings["gamma"],
        lam=settings["lam"],
        use_cpu=True,
        num_sample_generations=0,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **({} if job.column == "trl" else tuned(settings)),
    )


def update_callback(meter: Meter) -> Any:
    from transformers import TrainerCallback

    class UpdateEnd(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            meter.end_update()

    return UpdateEnd()


def attach(trainer: Any, job: Job, meter: Meter) -> None:
    """Book the parts of TRL's one long loop: they begin with its calls to `batch_generation` and `forward`."""
    import torch
    from trl.experimental.ppo import ppo_trainer

    generate, forward = meter.timed("sample", ppo_trainer.batch_generation), ppo_trainer.forward

    def batch_generation(*args: Any, **kwargs: Any) -> Any:
        meter.become("measure")
        return generate(*args, **kwargs)

    def forward_marked(*args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            meter.become("optimise")
        return forward(*args, **kwargs)

    ppo_trainer.batch_generation, ppo_trainer.forward = batch_generation, forward_marked
    if job.column == "trl-without-collect":
        ppo_trainer.gc = SimpleNamespace(collect=lambda: None)


if __name__ == "__main__":
    run_child(train)
