"""How many connections the scenes of bench-judge have."""

LATENCY_SIZES = (1, 1_000, 10_000)
CROWD_SIZE = 10_000
FLOWS, STREAMS = 100_000, 10_000
