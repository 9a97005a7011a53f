"""Placed tile ops -> a program: forms of a layer, places in array and scratchpad, schedules chosen by cost."""
