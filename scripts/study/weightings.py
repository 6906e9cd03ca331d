#!/usr/bin/env python3
"""How the mix, the weighting and the clip of the references change what a policy learns: a grid of short runs.

usage: weightings.py MRPO MODEL PAIRS.jsonl WORK_DIR [--grid=full|weightings|short] [--bad] [KEY=VALUE ...]

MODEL is a Hugging Face directory or a GGUF file, PAIRS preference pairs. The last 128 pairs are held out; the others are cut
in thirds. One adapter is trained with DPO on the first third, one on the second (with --bad: on the second with its sides
exchanged), and the policy on the last third against base and adapters, with every setting of the grid and three seeds. Every
run is a run directory of WORK_DIR and is not done again. Prints a table in Markdown; WORK_DIR/runs.jsonl has every run.
KEY=VALUE overrides a setting of all runs; n_train=N takes N pairs of the last third, n_held_out=N holds out N instead of 128.
Needs nothing but Python and mrpo.
"""

import itertools
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

SEEDS = (1, 2, 3)
MIXES = ("harmonic", "geometric", "arithmetic", "losses")
CLIPS = ("adaptive", "fixed", "none")
WEIGHTINGS = ("arwc", "uniform", "vdw", "vaw", "swcw", "swcw_one_hot", "thompson", "max_margin", "evidence")
GRIDS = {
    "full": [(MIXES, WEIGHTINGS, CLIPS)],
    "weightings": [(("harmonic", "geometric"), WEIGHTINGS, ("adaptive", "none"))],
    # With all weight on one reference the mix does not matter.
    "short": [
        (("harmonic",), ("arwc", "evidence", "max_margin"), ("adaptive", "none")),
        (("geometric",), ("arwc",), ("adaptive", "none")),
        (("harmonic", "geometric"), ("vaw",), ("adaptive",)),
    ],
}
# Student's t for 95 % and two degrees of freedom.
T_95 = 4.303

SETTINGS = {
    "beta": 0.1,
    "epsilon": 0.1,
    "learning_rate": 1e-4,
    "lr_schedule": "cosine",
    "warmup_ratio": 0.1,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "n_epochs": 1,
    "batch_size": 8,
    "micro_batch_tokens": 2048,
    "max_length": 1024,
    "truncation": "drop",
    "lora": {"rank": 8, "alpha": 16.0, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]},
    # Only before and after.
    "eval_every_n_steps": 1_000_000,
    "checkpoint_every_n_steps": 1_000_000,
}


class Study:
    def __init__(self, mrpo, model, pairs, work, settings, n_train, n_held_out, bad):
        self.mrpo, self.work, self.settings = mrpo, work, settings
        work.mkdir(parents=True, exist_ok=True)
        rows = [json.loads(line) for line in pairs.read_text().splitlines() if line.strip()]
        rows = [row for row in rows if row["chosen"].strip() and row["rejected"].strip() and row["chosen"] != row["rejected"]]
        rest, held_out = rows[:-n_held_out], rows[-n_held_out:]
        n = len(rest) // 3
        thirds = [rest[:n], rest[n : 2 * n], rest[2 * n : 3 * n]]
        if bad:
            thirds[1] = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in thirds[1]]
        self.held_out = self.write("held_out", held_out)
        self.thirds = [self.write(f"third-{i + 1}", third) for i, third in enumerate(thirds)]
        self.train = self.write("train", thirds[2][:n_train])
        self.base = self.register(model)
        self.scores = work / "scores.jsonl"
        adapters = [self.adapter(i) for i in (0, 1)]
        self.references = [self.base, *adapters]

    def write(self, name, rows):
        path = self.work / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    def run(self, name, spec):
        """Returns the events of a run, which is started unless it is done."""
        directory = self.work / "runs" / name
        events = directory / "events.jsonl"
        if not (events.exists() and '"type":"succeeded"' in events.read_text()):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            (directory / "spec.json").write_text(json.dumps(spec))
            # The references are the same in all runs: what one has scored the next need not.
            if spec["kind"] == "train" and self.scores.exists():
                shutil.copy(self.scores, directory / "scores.out.jsonl")
            subprocess.run([self.mrpo, "run", directory], check=True, stderr=subprocess.DEVNULL)
        found = [json.loads(line) for line in events.read_text().splitlines()]
        if found[-1]["type"] != "succeeded":
            sys.exit(f"{name}: {found[-1]}")
        if spec["kind"] == "train":
            shutil.copy(directory / "scores.out.jsonl", self.scores)
            shutil.rmtree(directory / "checkpoints" / "keep", ignore_errors=True)
        return found

    def register(self, model):
        store = str(self.work / "models")
        spec = {"kind": "register", "model": "base", "source": f"path:{model.resolve()}", "store_dir": store}
        found = next(e["model"] for e in self.run("base", spec) if e["type"] == "registered")
        return {"model": "base", "digest": found["digest"], "location": found["location"], "weight": None}

    def spec(self, references, method, training_file, seed, objective):
        return {
            "kind": "train",
            "job": "ftjob-" + "0" * 32,
            "seed": seed,
            "references": references,
            "method": {"type": method},
            "training_file": training_file,
            "validation_file": self.held_out,
            "hyperparameters": {**self.settings, **objective},
        }

    def adapter(self, i):
        spec = self.spec([self.base], "dpo", self.thirds[i], 1, {})
        made = self.run(f"adapter-{i + 1}", spec)[-1]["model"]
        name = f"adapter-{i + 1}"
        return {"model": name, "digest": made["digest"], "location": made["location"], "weight": None}

    def policy(self, seed, mix, weighting, clip, weights=None):
        """The held-out metrics after training with one setting."""
        objective = {"weighting": weighting, "clip": clip, "sum_of_losses": mix == "losses"}
        if mix != "losses":
            objective["mix"] = mix
        references = [{**r, "weight": w} for r, w in zip(self.references, weights or [None] * 3)]
        name = f"{mix}-{weighting}-{clip}-{seed}" if weights is None else f"single-{weights.index(1.0)}-{clip}-{seed}"
        method = "multi_dpo" if mix == "losses" else "mrpo"
        events = self.run(name, self.spec(references, method, self.train, seed, objective))
        shutil.rmtree(self.work / "runs" / name / "checkpoints", ignore_errors=True)
        evaluations = {e["phase"]: e["values"] for e in events if e["type"] == "evaluation"}
        return evaluations["before"], evaluations["after"]


def interval(values):
    half = T_95 * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values), half


def numbers(values):
    """Own accuracy, and accuracy and margin of the reward against the base alone."""
    base = "refs/base/rewards/"
    return values["logps/accuracies"], values[base + "accuracies"], values[base + "margins"]


def main():
    options = [a for a in sys.argv[1:] if "=" in a or a.startswith("--")]
    mrpo, model, pairs, work = [a for a in sys.argv[1:] if a not in options]
    grid_name = next((a.removeprefix("--grid=") for a in options if a.startswith("--grid=")), "full")
    given = dict(a.split("=", 1) for a in options if not a.startswith("--"))
    n_train, n_held_out = int(given.pop("n_train", 10**9)), int(given.pop("n_held_out", 128))
    settings = {**SETTINGS, **{key: json.loads(value) for key, value in given.items()}}
    study = Study(mrpo, Path(model), Path(pairs), Path(work).resolve(), settings, n_train, n_held_out, "--bad" in options)

    grid = [("single", name, "none") for name in ("base", "adapter-1", "adapter-2")]
    for axes in GRIDS[grid_name]:
        grid += itertools.product(*axes)
    rows, before = [], None
    for mix, weighting, clip in grid:
        results = []
        for seed in SEEDS:
            if mix == "single":
                k = [r["model"] for r in study.references].index(weighting)
                weights = [1.0 if i == k else 0.0 for i in range(3)]
                before, after = study.policy(seed, "harmonic", "fixed", clip, weights)
            else:
                before, after = study.policy(seed, mix, weighting, clip)
            results.append(numbers(after))
            with open(study.work / "runs.jsonl", "a") as out:
                out.write(json.dumps({"mix": mix, "weighting": weighting, "clip": clip, "seed": seed, "after": after}) + "\n")
        row = (mix, weighting, clip, *(interval([r[i] for r in results]) for i in range(3)))
        rows.append(row)
        print(mix, weighting, clip, [f"{m:.3f}±{h:.3f}" for m, h in row[3:]], file=sys.stderr, flush=True)
    for reference in study.references:
        name = reference["model"]
        print(f"reference {name}: accuracy {before[f'refs/{name}/accuracy']:.3f}, margin {before[f'refs/{name}/margin']:.2f}")
    own, _, _ = numbers(before)
    print(f"policy before: accuracy {own:.3f}\n")
    print("| mix | weighting | clip | accuracy | reward accuracy against the base | reward margin against the base |")
    print("|---|---|---|---|---|---|")
    for mix, weighting, clip, *columns in rows:
        cells = " | ".join(f"{m:.3f} ± {h:.3f}" for m, h in columns)
        print(f"| {mix} | {weighting} | {clip} | {cells} |")


if __name__ == "__main__":
    main()
