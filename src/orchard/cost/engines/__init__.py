"""Engine models: pure array functions from counts and hardware parameters to the time of each kernel."""
