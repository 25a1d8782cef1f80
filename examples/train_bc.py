"""Behaviour cloning from simulated demonstrations, on a CPU, rolled out through OnlineAligner.

    python examples/train_bc.py [--demos 60] [--steps 1500] [--rollouts 10]

1. `mmdata.simulate` demonstrates pick-and-place; every demonstration becomes an episode.
2. `EpisodeDataset` reads windows of them; statistics come from the training split.
3. A small network learns which pose and gripper width were commanded over the next second.
4. The recipe, one JSON, goes to a simulated robot whose messages come late and at their own rates;
   `OnlineAligner` makes of them the very samples the network was trained on.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmdata import SE3, EpisodeWriter
from mmdata.loaders import (
    BlockShuffle,
    EpisodeDataset,
    Recipe,
    SampleSpec,
    Shuffle,
    compute_statistics,
)
from mmdata.loaders.torch import EpisodeLoader
from mmdata.simulate import pick_place
from mmdata.simulate.arm import tool_down
from mmdata.simulate.render import Camera, encode_jpeg
from mmdata.simulate.script import Script
from mmdata.simulate.world import World

STREAMS = ("camera_front", "eef_pose", "joint_states", "command_eef_pose", "command_gripper")
RATE_HZ, STEPS = 20, 20
#: Half of a plan is carried out before the next one is made: a policy that plans anew at every tick
#: repeats the first moment of its plans, and the first moment of a pause is a pause.
REPLAN_NS = 500_000_000
#: Where the robot lets its hand go, whatever it is told: least and most x, y, z.
WORKSPACE_M = np.array([[0.28, -0.28, 0.0], [0.58, 0.28, 0.40]])

SPEC = SampleSpec.model_validate(
    {
        "timeline": {"rate_hz": RATE_HZ, "span": "eef_pose"},
        "delay_ms": 40,
        "keys": {
            "front": {
                "stream": "camera_front", "tolerance_ms": 150,
                "image": {"crop_tlhw": (40, 40, 200, 240), "size_hw": (80, 96)},
            },
            "pose": {"stream": "eef_pose", "fields": ["position"], "normalise": "min_max"},
            "joints": {"stream": "joint_states", "fields": ["position"], "normalise": "min_max"},
            "command": {
                "stream": "command_eef_pose", "fields": ["position"], "target": True,
                "at": {"start_s": 0.05, "steps": STEPS, "rate_hz": RATE_HZ},
                "normalise": "min_max",
            },
            "grip": {
                "stream": "command_gripper", "target": True, "normalise": "min_max",
                "at": {"start_s": 0.05, "steps": STEPS, "rate_hz": RATE_HZ},
            },
        },
    }
)  # fmt: skip


def demonstrate(folder: Path, demos: int) -> None:
    """Write `demos` episodes."""
    for seed in range(demos):
        simulated = pick_place(seed, streams=STREAMS)
        with EpisodeWriter(folder / f"{simulated.episode_id}.h5") as writer:
            for stream in simulated.raw.values():
                writer.add_stream(stream.info)
                writer.append(
                    stream.name, stream.source_ns, stream.fields, receive_ns=stream.receive_ns
                )
            writer.set_metadata(task=simulated.truth["task"], outcome="success")


class Policy(nn.Module):
    """Image and state to the commands of the next second, normalised."""

    def __init__(self, state: int, command: int) -> None:
        super().__init__()
        channels = (3, 24, 48, 64, 64)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(channels):
            layers += [nn.Conv2d(a, b, 5 if a == 3 else 3, 2, 1), nn.GroupNorm(8, b), nn.ReLU()]
        self.eye = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(2 * channels[-1] + state, 256), nn.ReLU(),
            nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, command),
        )  # fmt: skip

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        seen = self.eye(batch["front"].float() / 127.5 - 1)
        # Where each feature is strongest (spatial soft-argmax, Levine et al. 2016).
        height, width = seen.shape[-2:]
        weight = seen.flatten(2).softmax(-1).view_as(seen)
        x = (weight.sum(2) * torch.linspace(-1, 1, width)).sum(-1)
        y = (weight.sum(3) * torch.linspace(-1, 1, height)).sum(-1)
        state = [batch["pose"].flatten(1), batch["joints"].flatten(1)]
        return self.head(torch.cat([x, y, *state], 1))


def target(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Commands (B, steps * 4) and which of them are real."""
    command = torch.cat([batch["command"], batch["grip"][..., None]], -1)
    mask = batch["command.mask"] & batch["grip.mask"]
    return command.flatten(1), mask[..., None].expand_as(command).flatten(1)


def loss_of(policy: Policy, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    command, mask = target(batch)
    return ((policy(batch) - command).abs() * mask).sum() / mask.sum()


def train(
    dataset: EpisodeDataset, held_out: EpisodeDataset, steps: int
) -> tuple[Policy, list[float]]:
    """The policy and its loss per step."""
    keys = dataset.keys()
    state = int(np.prod(keys["pose"].shape)) + int(np.prod(keys["joints"].shape))
    policy = Policy(state, STEPS * 4)
    optimiser = torch.optim.AdamW(policy.parameters(), 1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    loader = EpisodeLoader(dataset, Shuffle(len(dataset), seed=0), 32, tail="drop")
    losses: list[float] = []
    epoch, begin = 0, time.perf_counter()
    while len(losses) < steps:
        loader.set_epoch(epoch)
        for batch in loader:
            loss = loss_of(policy, batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            if len(losses) % max(1, steps // 10) == 0:
                recent = np.mean(losses[-steps // 10 :])
                print(
                    f"step {len(losses):5d}  loss {recent:.4f}  held out "
                    f"{validate(policy, held_out):.4f}  {time.perf_counter() - begin:.0f} s",
                    flush=True,
                )
            if len(losses) == steps:
                break
        epoch += 1
    return policy, losses


@torch.no_grad()
def validate(policy: Policy, dataset: EpisodeDataset) -> float:
    """Mean loss over a few batches of episodes never trained on."""
    order = BlockShuffle(dataset.counts, 16, 4, seed=1)
    parts = [b for _, b in zip(range(8), EpisodeLoader(dataset, order, 32), strict=False)]
    return float(np.mean([loss_of(policy, batch).item() for batch in parts]))


# -- the robot -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell(World):
    """The simulated cell, where the hand goes where it is told instead of along a script."""

    now: dict[str, Any] = field(default_factory=dict)

    def tcp_pose(self, t: Any) -> tuple[np.ndarray, np.ndarray]:
        n = len(np.atleast_1d(t))
        return np.tile(self.now["tcp"], (n, 1)), np.tile(tool_down(0.0), (n, 1))

    def width(self, t: Any) -> np.ndarray:
        return np.full(len(np.atleast_1d(t)), self.now["width"])

    def object_pose(self, t: Any) -> tuple[np.ndarray, np.ndarray]:
        n = len(np.atleast_1d(t))
        return np.tile(self.now["cube"], (n, 1)), np.tile(self.now["turned"], (n, 1))


def rollout(policy: Policy, recipe: Recipe, seed: int, length_s: float = 14.0) -> dict[str, Any]:
    """Run the policy in a cell it has not seen, against the clock, with late messages."""
    script = Script(seed, ())
    script.play(first=True)
    world = World(script, seed)
    start, turned = world.object_pose(np.zeros(1))
    cell = Cell(script, seed)
    tcp, _ = world.tcp_pose(np.zeros(1))
    cell.now.update(
        tcp=tcp[0].copy(),  width=float(world.width(np.zeros(1))[0]),
        cube=start[0].copy(), turned=turned[0],
    )  # fmt: skip
    camera = Camera(world.rig["camera_front"].camera, world.panels, seed)
    mount = world.rig["camera_front"].parent_SE3_sensor
    aligner, rng = recipe.online(), np.random.default_rng(seed)
    now_ns, step_ns = 1_770_000_000_000_000_000, 10_000_000
    waiting: list[tuple[int, str, int, Any]] = []
    plan, plan_ns, grasped, near = None, 0, False, np.inf
    zero = np.zeros(1)
    for k in range(int(length_s * 1e9 / step_ns)):
        now_ns += step_ns
        state = cell.now
        messages: dict[str, Any] = {
            "eef_pose": {"position": state["tcp"].copy(), "orientation": cell.tcp_pose(zero)[1][0]},
            "joint_states": {
                "position": np.r_[cell.joints(zero)[0], 0.5 * state["width"], 0.5 * state["width"]]
            },
        }
        if k % 3 == 0:
            pose = SE3(mount.rotation, mount.translation)
            solids = [s.take(0) for s in cell.solids(zero)]
            messages["camera_front"] = encode_jpeg(camera.render(pose, solids)).tobytes()
        for name, message in messages.items():
            late = rng.uniform(0.001, 0.003) if name != "camera_front" else rng.uniform(0.015, 0.03)
            waiting.append((now_ns + int(late * 1e9), name, now_ns, message))
        for arrival, name, stamp, message in sorted(
            (m for m in waiting if m[0] <= now_ns), key=lambda m: m[0]
        ):
            aligner.push(name, message, stamp, arrival)
        waiting = [m for m in waiting if m[0] > now_ns]
        for sample in aligner.poll(now_ns):
            if not all(bool(np.all(sample[f"{n}.mask"])) for n in ("front", "pose", "joints")):
                continue
            if plan is None or int(sample["tick_ns"]) >= plan_ns + REPLAN_NS:
                plan, plan_ns = act(policy, recipe, sample), int(sample["tick_ns"])
        if plan is None:
            continue
        slot = int(np.clip((now_ns - plan_ns) * RATE_HZ // 10**9, 0, STEPS - 1))
        where, width = np.clip(plan[slot, :3], *WORKSPACE_M), float(plan[slot, 3])
        state["tcp"] += np.clip((where - state["tcp"]) * 0.15, -0.008, 0.008)
        speed = 0.1 * step_ns / 1e9
        size = script.object.size_m
        holds = grasped or np.abs(state["tcp"] - state["cube"]).max() < 0.018
        floor = size if holds else 0.0
        state["width"] = max(
            min(floor, state["width"]),
            state["width"] + float(np.clip(width - state["width"], -speed, speed)),
        )
        grasped = holds and state["width"] <= size + 1e-3
        if grasped:
            state["cube"] = state["tcp"].copy()
        near = min(near, float(np.linalg.norm(state["tcp"] - state["cube"])))
    lifted = cell.now["cube"][2] - start[0, 2]
    return {"near_m": near, "lifted_m": float(lifted)}


@torch.no_grad()
def act(policy: Policy, recipe: Recipe, sample: dict[str, Any]) -> np.ndarray:
    """Commands (steps, 4) in metres for one sample of the aligner."""
    batch = {
        name: torch.from_numpy(np.ascontiguousarray(sample[name]))[None]
        for name in ("front", "pose", "joints")
    }
    out = policy(batch).reshape(STEPS, 4).numpy()
    return np.concatenate(
        [recipe.restore("command", out[:, :3]), recipe.restore("grip", out[:, 3])[:, None]], 1
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demos", type=int, default=60)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rollouts", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep episodes and recipe here")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        demos = folder / "demos"
        if not demos.exists():
            demos.mkdir(parents=True)
            begin = time.perf_counter()
            demonstrate(demos, arguments.demos)
            print(f"{arguments.demos} demonstrations in {time.perf_counter() - begin:.0f} s")
        parts = EpisodeDataset(demos, SPEC).split({"train": 0.8, "val": 0.2})
        statistics = compute_statistics(parts["train"])
        dataset = parts["train"].with_statistics(statistics)
        print(dataset)
        policy, losses = train(dataset, parts["val"].with_statistics(statistics), arguments.steps)
        tenth = max(1, len(losses) // 10)
        first, last = np.mean(losses[:tenth]), np.mean(losses[-tenth:])
        print(f"loss {first:.4f} -> {last:.4f}")
        dataset.recipe().save(folder / "policy.recipe.json")
        recipe = Recipe.load(folder / "policy.recipe.json")
        results = [rollout(policy, recipe, 10_000 + n) for n in range(arguments.rollouts)]
        if results:
            near = [1e3 * r["near_m"] for r in results]
            lifted = sum(r["lifted_m"] > 0.05 for r in results)
            print(
                f"{len(results)} rollouts: nearest approach to the cube {np.median(near):.0f} mm "
                f"(median), lifted {lifted} times"
            )


if __name__ == "__main__":
    main()
