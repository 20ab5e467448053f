"""Write a network to a file that computes without matcaps: ONNX, or a program of ``torch.export``."""
