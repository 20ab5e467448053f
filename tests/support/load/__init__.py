"""What days of training, and a crowd of visitors of the demo, do to memory, files and answers: ``make test-load``."""
