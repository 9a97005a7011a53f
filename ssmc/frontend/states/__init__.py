"""From a state and its next value to a recurrence: linear, rounded, firing, stabilised."""
