# DemoNet of depth 12, width 16, with the star.
# python tools/train.py configs/evidence/demonet-d12-w16-star_cifar10.py
# Result: docs/evidence.md.
_base_ = './demonet-d12-w16-sum_cifar10.py'
model = dict(backbone=dict(operation='star'))
