"""What happens round the model while it is trained: callbacks, loggers, checkpoints."""
