"""What our adapters cost the client, against the peers and the floors: `python -m benchmarks`.

The server is a stand-in on one core, each measured client a fresh process on another. What is counted is the
client's CPU time (user + system); the figures are ratios inside one run, since absolute ones drift with the
machine.
Goals and reading: docs/performance.md.
"""
