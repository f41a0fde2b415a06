"""What "Ghosts of Softmax" reports of single steps, measured again: from which r on they harm."""

EXPERIMENTS = {
    "phase-transition": "phase_transition",
    "random-directions": "random_directions",
    "temperature": "temperature",
}
