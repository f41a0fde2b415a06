"""What "Ghosts of Softmax" reports of single steps and of radii over training, measured again."""

EXPERIMENTS = {
    "phase-transition": "phase_transition",
    "random-directions": "random_directions",
    "temperature": "temperature",
    "bottlenecks": "bottlenecks",
    "ghosts": "ghosts",
    "activations": "activations",
}
