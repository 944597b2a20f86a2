"""The model: one preprocessing, one network, released bundles and the runtimes that evaluate them."""

import os

# ONNX Runtime writes a device identifier and may report its use when it is imported. Nothing here may call home.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
