"""The model: one preprocessing, one network, released bundles and the runtimes that evaluate them."""
