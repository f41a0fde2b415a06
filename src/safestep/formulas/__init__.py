"""Pure arithmetic: functions of tensors and numbers, with no optimizer, module or logger in sight."""
