"""What a run leaves on disk, and reading it back; what every package asks of this machine: hardware, environment, imports."""
