"""What comes from others: locked by hashes, licensed, listed, and never unpickled."""
