"""What "Ghosts of Softmax" reports, measured again: from which r on steps harm, and what a limit on r protects."""

EXPERIMENTS = {
    "phase-transition": "phase_transition",
    "random-directions": "random_directions",
    "temperature": "temperature",
    "rate-spikes": "rate_spikes",
    "resnet": "resnet",
}
