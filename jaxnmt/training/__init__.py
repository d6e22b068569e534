"""From batches to a trained run: loss, optimizer, step, loop, checkpoints."""
