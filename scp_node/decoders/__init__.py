"""Reads pixel data in separate processes, so that a decoder that dies, hangs or fills the memory costs one image."""

from scp_node.decoders.pool import DECODER, DecoderPool
from scp_node.decoders.process import DecoderStartError
from scp_node.decoders.watched import WatchedDecoder

__all__ = ["DECODER", "DecoderPool", "DecoderStartError", "WatchedDecoder"]
