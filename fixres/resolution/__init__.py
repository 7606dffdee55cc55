"""The test resolution at which objects appear as large as in training (arXiv 1906.06423, section 3.1).

`apparent_size` has the distribution of sizes under RandomResizedCrop, `advice` what follows for a data set.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "advice": ["Advice", "advise"],
        "apparent_size": ["apparent_ratio", "matching_test_res", "mean_sigma", "sigma_cdf", "sizes_in_testing"],
    },
)
