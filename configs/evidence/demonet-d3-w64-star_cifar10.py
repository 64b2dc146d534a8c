# DemoNet of width 64 with the star.
# python tools/train.py configs/evidence/demonet-d3-w64-star_cifar10.py
# Result: docs/evidence.md.
_base_ = './demonet-d3-w64-sum_cifar10.py'
model = dict(backbone=dict(operation='star'))
