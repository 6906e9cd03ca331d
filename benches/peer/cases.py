"""What is compared: the cases, and the sides that run each of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    name: str
    n_pairs: int
    max_length: int
    # A step is `micro_pairs` x `accumulation` pairs. mrpo is given the product and cuts it by tokens.
    micro_pairs: int
    accumulation: int
    is_lora: bool = True
    is_long: bool = False
    # References besides the base.
    extra_references: int = 0

    @property
    def batch_size(self):
        return self.micro_pairs * self.accumulation

    @property
    def learning_rate(self):
        return 1e-4 if self.is_lora else 1e-6


CASES = {
    case.name: case
    for case in (
        Case("dpo", 32, 512, 2, 4),
        Case("k3", 32, 512, 2, 4, extra_references=2),
        Case("full", 32, 512, 2, 4, is_lora=False),
        Case("long", 4, 2304, 1, 4, is_long=True),
    )
}


@dataclass(frozen=True)
class Side:
    name: str
    is_mrpo: bool
    dtype: str
    # TRL only: the references' log-probabilities in a pass before training, not in every step. mrpo always does so.
    is_precomputed: bool = False


SIDES = {
    side.name: side
    for side in (
        Side("trl-f32", False, "float32"),
        Side("trl-bf16", False, "bfloat16"),
        Side("trl-bf16-pre", False, "bfloat16", is_precomputed=True),
        Side("mrpo-f32", True, "float32"),
        Side("mrpo-bf16", True, "bfloat16"),
    )
}
