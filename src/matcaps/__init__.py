"""Matrix capsule networks with EM routing, in PyTorch."""
