"""The runtimes that evaluate a bundle: one module each, imported only when `opening` is asked for it."""
