"""Training of the baselines: one plain loop for all of them, exact to the bit when it is stopped and resumed.

What the loop asks of a model, an `nn.Module`:

    Model(**sizes)                          `sizes` are the keys of the arm's `model` section in params.yaml
    loss(batch, generator, step) -> (loss, parts)
        batch       dict of `satjepa.data.pairs.collate`, its tensors on the device of the model
        generator   torch.Generator on the CPU, a function of (seed, step): noise, noise levels, masks are drawn from
                    it and then moved; the global generator is seeded likewise, for dropout
        step        optimiser steps made so far, from 0
        loss        scalar with a gradient; only pixels valid in both years have a part in it
        parts       name -> detached scalar, a column of log.csv; not "loss", "grad_norm", "val_loss"
        In eval mode (`self.training` is False) the loss is what the weights are selected by: it is then asked without
        gradient and with the same generator each time, and `step` is the one just made.
    forecast(batch, samples, seed) -> (samples, B, 3, H, W) float32 in [0, 1] on the CPU, in eval mode, no gradient
"""
