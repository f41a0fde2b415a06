"""What "Ghosts of Softmax" reports, measured again: single steps, spikes and instabilities, radii over training."""

EXPERIMENTS = {
    "phase-transition": "phase_transition",
    "random-directions": "random_directions",
    "temperature": "temperature",
    "rate-spikes": "rate_spikes",
    "resnet": "resnet",
    "bottlenecks": "bottlenecks",
    "ghosts": "ghosts",
    "activations": "activations",
}
