"""Where things lie, and the parity scripts made importable: this benchmark computes what they check."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
PARITY = TOP / "scripts" / "parity"
SHARED = Path(os.environ.get("MRPO_SHARED", TOP.parent / "shared"))
GGUF = Path(os.environ.get("MRPO_SMOLLM2_GGUF", TOP.parent / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"))
PREFERENCE = SHARED / "data" / "preference"
HARMLESS = PREFERENCE / "hh_rlhf_harmless_base_test.jsonl"
POLITE = PREFERENCE / "llms_from_scratch_polite.jsonl"

sys.path.insert(0, str(PARITY))
