"""The demo's language model: characters of the Python documentation, two minutes on two CPU cores."""

from training.presets import char_small

CONFIG = {**char_small.CONFIG, "warmup_steps": 20, "max_steps": 1200, "evaluate_every": 400}
