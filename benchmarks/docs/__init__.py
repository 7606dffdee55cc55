"""Records of finished runs, and the tables of all records in README and docs.

`python -m benchmarks.docs.collect` makes a record of finished runs; tools/render_results.py fills the documents.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__, submod_attrs={"render": ["documents", "rendered", "section"]})
