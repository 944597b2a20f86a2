"""The runtimes that evaluate a bundle: one module each, which only `opening` imports when needed."""
