"""The checks of `byre doctor`, by what they look at; `reconciler.doctor` has the list of them."""
