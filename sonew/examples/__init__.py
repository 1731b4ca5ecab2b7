"""Programs to copy from: each runs by itself in seconds, on random data.

python -m sonew.examples.train
torchrun --nproc-per-node 2 -m sonew.examples.fsdp2
"""
