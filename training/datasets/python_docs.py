"""The Python documentation that ships with every interpreter (`help()` shows it): prose about a language.

About 460,000 characters, which differ a little from one version of Python to the next. Licence: PSF-2.0.
"""

from __future__ import annotations

from training.datasets.splitting import Fractions
from training.datasets.text import Stream, in_memory


def open_topics(fractions: Fractions) -> Stream:
    """All topics, in the order of their names, as one text; the last part is held out."""
    from pydoc_data.topics import topics  # half a megabyte, and not in every minimal installation

    text = "".join(topics[name] for name in sorted(topics))
    return Stream(in_memory("python_docs", text), fractions)
