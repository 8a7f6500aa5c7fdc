"""Published recipes, one module each: its docstring is the lab notebook, its CONFIG the settings."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    module.name: importlib.import_module(f"{__name__}.{module.name}").CONFIG
    for module in pkgutil.iter_modules(__path__)
}
