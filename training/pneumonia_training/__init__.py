"""Train, evaluate and release the model. The node never imports this package."""
