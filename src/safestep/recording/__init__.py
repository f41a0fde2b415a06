"""What happens in a step, as hooks see it: forwards, stored gradients, the optimizer's step, what was changed."""
