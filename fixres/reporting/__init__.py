"""HTML pages and plots that all reports share, those of experiments and those of benchmarks; records are read here.

A page is one file: tables, plots and crops are inside it. Templates extend page.html.j2 and use the macro of
table.html.j2, both in reporting/templates.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "html_page": ["condition_rows", "embed", "render_page", "write_page"],
        "records": ["read_record"],
        "plots": ["COLORS", "axes", "contact_sheet", "enlarged", "shades", "stacked_bars"],
    },
)
