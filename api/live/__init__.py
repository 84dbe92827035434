"""Live sessions: a voice in, marked and signed segments out, behind the same gate as everything else."""
